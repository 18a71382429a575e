"""The commands that speak and listen: `generate`, `classify`. Take a bundle; give sound files, and what is heard in them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from tyro.conf import Positional, arg

from duovox import __version__
from duovox.commands.options import Sampling, SamplingOptions, open_voice, refuse_existing
from duovox.config import SampleConfig, to_dict
from duovox.contracts import ConfigError, DuovoxError, OutputError
from duovox.files import safe_name, write_whole
from duovox.shipped import DEFAULT_BUNDLE
from duovox.text import printable

if TYPE_CHECKING:
    from duovox.clip import Clip

AudioFormat = Literal["wav", "flac", "ogg"]
STANDARD_INPUT = Path("-")
SOUND_SUFFIXES = tuple(f".{name}" for name in get_args(AudioFormat))

MOST_CLIPS = 10_000
"""So many and no more are made by a command that begins anew each time."""


def generate(
    label: Positional[str],
    /,
    out: Path = Path("."),
    n: int = 1,
    seed: int = 0,
    sampling: SamplingOptions = Sampling(),  # noqa: B008 (frozen)
    guide: tuple[str, ...] = (),
    vocoder: Literal["neural", "griffin_lim"] | None = None,
    bundle: str = DEFAULT_BUNDLE,
    model: Path | None = None,
    trust_code: bool = False,
    format: AudioFormat = "wav",
    spectrogram: bool = False,
    batch: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    precision: Literal["auto", "fp32", "bf16"] = "fp32",
    keep_faulty: bool = False,
    force: bool = False,
) -> None:
    """Speak a word.

    Writes each clip with a JSON file beside it that says how it was made (seed, settings, bundle, what the classifier
    hears in it). Settings left out are the bundle's own.

    Args:
        label: The word to speak, one of the bundle's labels or its figure (7), or `any` for whatever comes.
        out: A file name for one clip (its suffix chooses the format), or a folder for clips named <label>_<seed>.
        n: How many clips; their seeds are seed, seed + 1, ...
        seed: Seed of the first clip. The same seed and settings give the same clip.
        sampling: Settings of sampling, the bundle's own where left out.
        guide: Guides that steer the clip further, each as GUIDE-TARGET:GAMMA: pitch-196Hz, loudness--20dB, speaker-FILE.wav (in the voice
            of a recording), own-LABEL (this voice's own classifier), or a folder made by `duovox guide`. TARGET may be several labels with
            weights (three=0.5,five=0.5; four=-1 keeps away from it).
        vocoder: How the mel becomes sound.
        bundle: Name of a bundle in the package, a bundle folder, or a hub id.
        model: A folder made by `duovox export`, in the place of a bundle; runs without PyTorch.
        trust_code: Run the code that a bundle or a guide of someone else's classifier names or holds.
        format: Format of the clips in a folder.
        spectrogram: Also write each clip's log-mel as a PNG picture.
        batch: Clips computed at once; changes speed and memory, not the clips.
        device: Where to compute.
        precision: What the networks sample in; auto takes bf16 where it is fast. Clips of the same seed differ a little between them.
        keep_faulty: Write clips that ran off to noise or silence as well.
        force: Overwrite files that exist.
    """
    if n > MOST_CLIPS:
        raise ConfigError(
            f"--n {n} exceeds {MOST_CLIPS}; take `duovox dataset --words {label} --per-word {n} --out FOLDER`, which goes on when stopped"
        )
    places = _free_paths(out, label, seed, n, format, spectrogram, force)
    if batch < 1:
        raise ConfigError(f"the batch must be at least 1, not {batch}")
    from duovox.clip import refuse_faulty

    voice = open_voice(bundle, model, trust_code, device, precision)
    wanted = voice.check_request(None if label == "any" and label not in voice.labels else label, seed, n)
    settings = voice.settings(**sampling.given())
    steer = _steering(voice, guide, trust_code, settings)
    if wanted is not None and wanted != label:  # asked for by another name
        places = _free_paths(out, wanted, seed, n, format, spectrogram, force)
    faulty: list[Clip] = []
    batches = (range(first, min(first + batch, seed + n)) for first in range(seed, seed + n, batch))
    made = (clip for seeds in batches for clip in voice.generate_batch([(wanted, one) for one in seeds], settings, vocoder, **steer))
    for path, clip in zip(places, made, strict=True):
        if clip.fault:
            faulty.append(clip)
        if not clip.fault or keep_faulty:
            _write_clip(path, clip, {"bundle": voice.digest, "precision": voice.precision}, spectrogram, force)
            print(f"{printable(str(path))}: {_summary(clip)}")
    if not keep_faulty:
        refuse_faulty(faulty, n)


def _steering(voice: Any, guide: tuple[str, ...], trust_code: bool, settings: SampleConfig) -> dict[str, Any]:
    """What `generate_batch` is told of the guides. Raises `ConfigError` for an exported voice, which takes none."""
    if not guide:
        return {}
    from duovox.lite.voice import Voice

    if isinstance(voice, Voice):
        raise ConfigError("--guide needs PyTorch: an exported voice takes no guides; give --bundle in the place of --model")
    from duovox.asking import read_guides
    from duovox.steering import check_guides

    guides = read_guides(voice, guide, trust_code)
    check_guides(guides, settings)
    return {"guides": guides}


def _summary(clip: Clip) -> str:
    heard = max(clip.probabilities, key=clip.probabilities.__getitem__)
    said = "unconditional" if clip.label is None else printable(clip.label)
    return f"{said}, seed {clip.seed}, heard as {printable(heard)} ({clip.probabilities[heard]:.3f})"


def _free_paths(out: Path, label: str, seed: int, n: int, format: AudioFormat, spectrogram: bool, force: bool) -> list[Path]:
    """Where the clips go; refused where something is there, or lies in the way of their side files."""
    places = _clip_paths(out, label, seed, n, format)
    refuse_existing([p.with_suffix(s) for p in places for s in _suffixes(p, spectrogram)], force)
    return places


def _clip_paths(out: Path, label: str, seed: int, n: int, format: AudioFormat) -> list[Path]:
    """Where the clips go: `out` itself if it names a sound file, else files in the folder `out`."""
    if out.suffix and not out.is_dir():
        if out.suffix.lower() not in SOUND_SUFFIXES:
            raise OutputError(f"{out}: cannot write {out.suffix}; choose one of {', '.join(SOUND_SUFFIXES)}, or a folder without a dot")
        if n != 1:
            raise OutputError(f"{out} is one file, but {n} clips were asked for; give a folder")
        return [out]
    return [out / f"{safe_name(label)}_{number}.{format}" for number in range(seed, seed + n)]


def _suffixes(path: Path, spectrogram: bool) -> list[str]:
    return [path.suffix, ".json"] + [".png"] * spectrogram


def _write_clip(path: Path, clip: Clip, made_by: dict[str, str], spectrogram: bool, force: bool) -> None:
    from duovox.sound.audio import write_audio

    story = {
        "label": clip.label,
        "seed": clip.seed,
        "settings": to_dict(clip.settings),
        **({"guides": [to_dict(guide) for guide in clip.guides]} if clip.guides else {}),
        "vocoder": clip.vocoder,
        **made_by,
        "duovox": __version__,
        "probabilities": {name: round(p, 6) for name, p in clip.probabilities.items()},
        **({"fault": clip.fault} if clip.fault else {}),
    }
    write_audio(path, clip.wave, clip.rate, force=force, parents=True)
    write_whole(path.with_suffix(".json"), (json.dumps(story, indent=2) + "\n").encode(), force=force)
    if spectrogram:
        from duovox.sound.picture import sheet

        write_whole(path.with_suffix(".png"), sheet([[clip.log_mel]]), force=force)


def classify(
    sounds: Positional[tuple[Path, ...]],
    /,
    bundle: str = DEFAULT_BUNDLE,
    model: Path | None = None,
    trust_code: bool = False,
    as_json: Annotated[bool, arg(name="json")] = False,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
) -> None:
    """Recognise the word in sound files, or in all sound files below a folder.

    What was cut of a sound is told on standard error; a sound with nothing in it is an error.

    Args:
        sounds: Files (wav, flac, ogg, opus, mp3) or folders; - reads standard input. Of a longer sound the loudest second counts.
        bundle: Name of a bundle in the package, a bundle folder, or a hub id.
        model: A folder made by `duovox export`, in the place of a bundle; runs without PyTorch.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        as_json: Print one JSON object with every label's probability per file.
        device: Where to compute.
    """
    from duovox.sound.audio import READABLE

    files, failed = _files_of(sounds)
    if not files and not failed:
        where = f" in {', '.join(map(str, sounds))}" if sounds else " given; name files or folders, or - for standard input"
        raise DuovoxError(f"no sound files ({', '.join(READABLE)}){where}")
    voice = open_voice(bundle, model, trust_code, device)
    results: dict[str, dict[str, float]] = {}
    for file in files:
        try:
            heard = voice.listen(sys.stdin.buffer if file == STANDARD_INPUT else file)
        except DuovoxError as error:
            failed.append(f"standard input: {error}" if file == STANDARD_INPUT else str(error))
        else:
            results[str(file)] = heard.probabilities
            for note in heard.notes:
                print(f"note: {printable(str(file))}: {note}", file=sys.stderr)
    print(json.dumps(results, indent=2) if as_json else "".join(map(_table_line, results.items())), end="\n" if as_json else "")
    for line in failed[:-1]:
        print(f"duovox: {printable(line)}", file=sys.stderr)
    if failed:
        raise DuovoxError(failed[-1])


def _files_of(sounds: tuple[Path, ...]) -> tuple[list[Path], list[str]]:
    """The files that are named or lie in the folders named, and what is wrong with others there."""
    from duovox.sound.folders import find_sounds

    files: list[Path] = []
    wrong: list[str] = []
    for sound in sounds:
        if sound.is_dir():
            found = find_sounds(sound)
            files += found.sounds
            wrong += [f"{path}: {reason}" for path, reason in found.unusable.items()]
        else:
            files.append(sound)
    return files, wrong


def _table_line(result: tuple[str, dict[str, float]]) -> str:
    """The three most probable labels of a file."""
    name, probabilities = result
    best = sorted(probabilities.items(), key=lambda item: -item[1])[:3]
    return f"{printable(name)}\t" + "\t".join(f"{label} {p:.3f}" for label, p in best) + "\n"
