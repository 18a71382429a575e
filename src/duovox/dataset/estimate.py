"""What a data set would be: takes a plan, gives clips, sound and bytes, without making any."""

from __future__ import annotations

from duovox.dataset.plan import Tally, cut_shards, further
from duovox.dataset.records import missing
from duovox.dataset.run import Planned
from duovox.generation import require_settled

WAV_HEADER, TAR_BLOCK = 44, 512
ROW = 350
"""Bytes of a clip's record but for its probabilities, about."""

PROBABILITY = 20
"""Bytes of one, with its label."""


def estimate(planned: Planned) -> str:
    """One line: what would be made if no clip was thrown away, and how much of it is there. Raises `OutputError` for a folder of other
    things, or of another data set."""
    job, clips = planned.job, planned.clips
    require_settled(job.out, planned.facts)
    shards = cut_shards(further(job.targets, [Tally()] * len(job.targets), planned.options.seed, planned.options.tries), planned.size)
    left = sum(len(shard.items) for shard in missing(shards, job.out))
    hours = clips * planned.samples / planned.rate / 3600
    most, negatives = (
        max(target.first + target.want for target in job.targets),
        sum(target.want for target in job.targets if not target.positive),
    )
    named = f"{sum(target.positive for target in job.targets)} words" + f", {negatives} of them negatives" * bool(negatives)
    words = f"{clips} clips of {named}, seeds {planned.options.seed} to {planned.options.seed + most - 1}"
    sound = f"{hours:.3g} h of sound, about {_size(clips * clip_bytes(planned))}, {len(shards)} shards of {planned.size}"
    return f"{job.out}: {words}; {sound}; {clips - left} clips are there, {left} to make"


def clip_bytes(planned: Planned) -> int:
    """Bytes of one clip: its WAV exactly, its records about."""
    record = ROW + PROBABILITY * sum(map(len, planned.labels))
    wav = WAV_HEADER + 2 * planned.samples
    if planned.job.layout == "webdataset":  # in the tar, with a JSON file, each behind a header and up to whole blocks
        wav = sum(TAR_BLOCK + -(-size // TAR_BLOCK) * TAR_BLOCK for size in (wav, record + ROW))
    return wav + 2 * record


def _size(count: float) -> str:
    """Bytes in the unit that suits, decimal as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
