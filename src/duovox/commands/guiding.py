"""The command `guide`, and what `--guide` of other commands says. Take a network; give the folder of a guide, which any voice may use."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from tyro.conf import Positional

from duovox.commands.foreign import in_the_shells_words, json_object
from duovox.config import GuideStrength, ScheduleName, read_input
from duovox.contracts import ConfigError, GuideAt, GuideError, GuideWay
from duovox.shipped import DEFAULT_BUNDLE
from duovox.text import printable

if TYPE_CHECKING:
    from duovox.guide_folder import GuideNetwork
    from duovox.steering import ScheduledGuide
    from duovox.voice import Duovox


def guide(
    source: Positional[str],
    /,
    out: Path,
    weights: Path | None = None,
    arguments: str = "{}",
    takes: str | None = None,
    labels: str | None = None,
    output: str = "",
    output_kind: Literal["auto", "logits", "probabilities", "log_probabilities"] = "auto",
    references: tuple[Path, ...] = (),
    background: tuple[Path, ...] = (),
    data: Path | None = None,
    bundle: str = DEFAULT_BUNDLE,
    trust_code: bool = False,
    temperature: float | None = None,
    gamma: float | None = None,
    interval: tuple[float, float] | None = None,
    cap: float | None = None,
    schedule: ScheduleName | None = None,
    at: GuideAt | None = None,
    way: GuideWay | None = None,
    force: bool = False,
) -> None:
    """Make a guide of a classifier or an embedding network: a folder that `duovox generate --guide` and `duovox serve --guide` take.

    Nothing is trained. With --references the network is taken for one that embeds sounds, and the guide says "like this sound".

    Args:
        source: The network, as in `duovox repurpose`; or a classifier of ours: a bundle, or a run folder of `duovox train classifier`.
        out: Folder for the guide; its name is what the guide is called.
        weights: A safetensors file that fills the function's network.
        arguments: The function's keyword arguments, as a JSON object.
        takes: What it takes: `mel` (ours), `wave` or `wave:B1S:8000` (layout, one second), or a TOML file with [mel_input] or [wave_input].
        labels: Its labels in the order of its outputs, separated by commas.
        output: Which entry of its output holds the logits or the embedding, if it returns several things.
        output_kind: What it returns; found by running it if left out.
        references: Sound files, or folders of them, each a label by its name: what an embedding is to be near to.
        background: Sound files or folders that the references are told apart from, such as other speakers.
        data: Feature folder whose labels it knows, to fit a temperature for each noise level on.
        bundle: The voice in whose sampling the temperatures are fitted and the cost is counted: name, bundle folder, or hub id.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        temperature: Divides its logits everywhere, where no data are given.
        gamma: How strongly it guides, unless told otherwise.
        interval: The noise levels (sigma) between which it guides.
        cap: The most that the root mean square of its shift may be at one evaluation.
        schedule: How its strength runs: constant, early (fading as the noise goes) or late (growing).
        at: Where it is asked; a network that never met noise at the estimate alone.
        way: How its gradient comes back from the estimate: through the denoiser, or straight, which costs less.
        force: Overwrite a guide that exists.
    """
    from duovox.guide_folder import refuse_taken
    from duovox.repurposing import calibrate_guide
    from duovox.voice import Duovox

    refuse_taken(out, force)
    strength = {"gamma": gamma, "interval": interval, "cap": cap, "schedule": schedule, "at": at, "way": way}
    given = _Given(source, weights, arguments, takes, labels, output, output_kind, references, background, temperature)
    with in_the_shells_words():
        made = _made(given, out.name, strength)
    levels: Any = ()
    voice = Duovox.from_pretrained(bundle, trust_code=trust_code)
    if data is not None:
        made, levels = calibrate_guide(made, data, voice)
    made.write(out, force)
    _report(made, out, levels)
    print(_fit(made, voice, bundle))


class _Given(NamedTuple):
    """What the command was told of a network."""

    source: str
    weights: Path | None
    arguments: str
    takes: str | None
    labels: str | None
    output: str
    output_kind: Literal["auto", "logits", "probabilities", "log_probabilities"]
    references: tuple[Path, ...]
    background: tuple[Path, ...]
    temperature: float | None


def _made(given: _Given, name: str, strength: dict[str, Any]) -> GuideNetwork:
    from duovox.classifiers.loading import load_network
    from duovox.repurposing import make_embedding_guide, make_guide, make_own_guide
    from duovox.repurposing.guide_making import is_bundle, is_run, sounds_of
    from duovox.steering import changed

    if is_bundle(given.source) or is_run(given.source):
        _refuse_what_ours_know(given)
        return make_own_guide(given.source, name=name, strength=changed(GuideStrength(at="noised"), strength))
    network = load_network(given.source, given.weights, json_object(given.arguments))
    features = read_input(given.takes) if given.takes else None
    options: dict[str, Any] = {"name": name, "output": given.output, "strength": changed(GuideStrength(), strength)}
    options |= {} if given.temperature is None else {"temperature": given.temperature}
    if given.references:
        heard = {path.resolve().name if path.is_dir() else path.stem: sounds_of(path) for path in given.references}
        if len(heard) < len(given.references):
            raise ConfigError("two of the references have the same name; rename one of them")
        background = [sound for path in given.background for sound in sounds_of(path)]
        return make_embedding_guide(network, heard, background, features, **options)
    if given.background:
        raise ConfigError("--background goes with --references: name the sounds that the guide is to be near to")
    labels = [label.strip() for label in given.labels.split(",")] if given.labels else None
    return make_guide(network, labels, features, output_kind=None if given.output_kind == "auto" else given.output_kind, **options)


def _refuse_what_ours_know(given: _Given) -> None:
    """Raise `ConfigError` for what a classifier of ours says itself."""
    said: dict[str, Any] = {"weights": given.weights, "takes": given.takes, "labels": given.labels, "output": given.output}
    said |= {"references": given.references, "temperature": given.temperature}
    for name, value in said.items():
        if value:
            raise ConfigError(f"{given.source} is a classifier of ours and knows its own; leave --{name} out")


def _report(made: GuideNetwork, out: Path, levels: Any) -> None:
    """What was made, and how to use it."""
    from duovox.calibration import levels_table

    for note in made.config.notes:
        print(f"note: {note}")
    if levels:
        print(levels_table(levels))
    print(f"{printable(str(out))} knows {printable(', '.join(made.labels))}; next:")
    external = made.config.recipe.external
    words = ["duovox", "generate", "any", "--guide", f"{out}-{made.labels[0]}:{made.config.strength.gamma:g}"]
    print(f"  {shlex.join([*words, *['--trust-code'] * (external is not None and external.source != 'huggingface')])}")


def _fit(made: GuideNetwork, voice: Duovox, bundle: str) -> str:
    """What an evaluation of the voice costs with the guide, or why the two do not fit."""
    from duovox.costs import guided_gmacs
    from duovox.steering import aim, join

    try:
        guide = aim(join(made, voice.bundle), voice.bundle, made.labels[0], {}).guide
    except GuideError as error:
        return f"note: {error}"
    model, at = voice.bundle.model, voice.config.recipe.sample.guide_at
    plain, guided = (guided_gmacs(model, at, more) for more in ((), (guide,)))
    return f"an evaluation of the voice {printable(bundle)} costs {guided:.2f} GMACs with it, {plain:.2f} without"


def read_guides(voice: Duovox, texts: tuple[str, ...], trust_code: bool) -> list[ScheduledGuide]:
    """The guides that `--guide` names, each as FOLDER-TARGET:GAMMA, or FOLDER-TARGET:GAMMA:straight. Raises `GuideError`, `LabelError`,
    `ConfigError`."""
    chosen = [_split(text) for text in texts]
    return [voice.guide(source, target, trust_code=trust_code, **strength) for source, target, strength in chosen]


def _split(text: str) -> tuple[str, str | None, dict[str, Any]]:
    """Folder, target and strength; the folder is the longest start of the text that is a guide (or `own`, the voice's own classifier)."""
    from duovox.guide_folder import is_guide
    from duovox.steering import OWN

    whole, strength = split_strength(text)
    ends = [len(whole), *(place for place in reversed(range(len(whole))) if whole[place] == "-")]
    for end in ends:
        source, target = whole[:end], whole[end + 1 :]
        if source == OWN or (source and is_guide(Path(source))):
            return source, target or None, strength
    raise GuideError(f"--guide {text!r} names no guide; write FOLDER-LABEL:GAMMA with a folder made by `duovox guide`, or own-LABEL:GAMMA")


def split_strength(text: str) -> tuple[str, dict[str, Any]]:
    """A guide without what follows it after colons, gamma and way, and those as changes of its strength. Raises `GuideError`."""
    start, colon, end = text.rpartition(":")
    if not colon:
        return text, {}
    if end in get_args(GuideWay):
        whole, before = split_strength(start)
        return whole, before | {"way": end}
    try:
        return start, {"gamma": float(end)}
    except ValueError:
        raise GuideError(f"--guide {text!r}: {end!r} is no strength; write FOLDER-LABEL:GAMMA, as pitch-196Hz:10") from None
