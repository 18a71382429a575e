"""The command `guide`: takes a network; gives the folder of a guide, which any voice may use."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tyro.conf import Positional

from duovox.commands.foreign import in_the_shells_words, json_object
from duovox.config import GuideStrength, ScheduleName, listed, read_input
from duovox.contracts import ConfigError, GuideAt, GuideError, GuideWay
from duovox.shipped import DEFAULT_BUNDLE
from duovox.text import printable

if TYPE_CHECKING:
    from duovox.guide_folder import GuideNetwork
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
    candidates: int | None = None,
    force: bool = False,
) -> None:
    """Make a guide of a classifier or an embedding network: a folder that `duovox generate --guide` and `duovox serve --guide` take.

    Nothing is trained. With --background the network is taken for one that embeds sounds, and the guide says "like this sound".

    Args:
        source: The network, as in `duovox repurpose`; or one of ours: a bundle, a run folder of `duovox train classifier` or `speaker`;
            or a guide that embeds sounds (`speaker`, or its folder), which gets --references.
        out: Folder for the guide; its name is what the guide is called.
        weights: A safetensors file that fills the function's network.
        arguments: The function's keyword arguments, as a JSON object.
        takes: What it takes: `mel` (ours), `wave` or `wave:B1S:8000` (layout, one second), or a TOML file with [mel_input] or [wave_input].
        labels: Its labels in the order of its outputs, separated by commas.
        output: Which entry of its output holds the logits or the embedding, if it returns several things.
        output_kind: What it returns; found by running it if left out.
        references: Sound files, or folders of them, each a label by its name: what an embedding is to be near to. Left out, they are
            given with the target: `--guide GUIDE-FILE.wav`.
        background: Sounds that these are told apart from: files, folders, or a feature folder, of which each speaker gives a clip.
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
        candidates: Among so many noises it chooses the one to begin with, by quick sketches.
        force: Overwrite a guide that exists.
    """
    from duovox.guide_folder import refuse_taken
    from duovox.repurposing import calibrate_guide
    from duovox.voice import Duovox

    refuse_taken(out, force)
    strength = {"gamma": gamma, "interval": interval, "cap": cap, "schedule": schedule, "at": at, "way": way, "candidates": candidates}
    given = _Given(source, weights, arguments, takes, labels, output, output_kind, references, background, temperature)
    levels: Any = ()
    voice = Duovox.from_pretrained(bundle, trust_code=trust_code)
    with in_the_shells_words():
        made = _made(given, out.name, strength, voice, trust_code)
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


def _made(given: _Given, name: str, strength: dict[str, Any], voice: Duovox, trust_code: bool) -> GuideNetwork:
    from duovox.guide_folder import is_guide, locate_guide
    from duovox.repurposing import make_own_guide
    from duovox.repurposing.guide_making import is_bundle, is_run, is_speaker_run
    from duovox.steering import changed

    if is_guide(locate_guide(given.source)):
        return _made_of_guide(given, name, strength, voice, trust_code)
    if is_speaker_run(given.source):
        return _made_of_speakers(given, name, strength)
    if is_bundle(given.source) or is_run(given.source):
        _refuse_what_ours_know(given, "references", "background", "temperature")
        return make_own_guide(given.source, name=name, strength=changed(GuideStrength(at="noised"), strength))
    return _made_of_another(given, name, strength)


def _made_of_guide(given: _Given, name: str, strength: dict[str, Any], voice: Duovox, trust_code: bool) -> GuideNetwork:
    """A guide that embeds sounds, with references of its own."""
    from duovox.guide_folder import read_guide
    from duovox.repurposing import with_references
    from duovox.steering import changed

    _refuse_what_ours_know(given, "background", "temperature")
    if not given.references:
        raise ConfigError(f"{given.source} is a guide already; give --references, sounds that are to be its labels")
    guide = read_guide(given.source, trust_code)
    return with_references(guide, _named_sounds(given.references), voice, name=name, strength=changed(guide.config.strength, strength))


def _made_of_speakers(given: _Given, name: str, strength: dict[str, Any]) -> GuideNetwork:
    """A guide of a run of `duovox train speaker`; its references, if there are none, come with the target."""
    from duovox.repurposing import make_speaker_guide
    from duovox.steering import changed

    _refuse_what_ours_know(given)
    options = {} if given.temperature is None else {"temperature": given.temperature}
    heard = _named_sounds(given.references)
    return make_speaker_guide(
        given.source, _background(given.background), heard, name=name, strength=changed(GuideStrength(), strength), **options
    )


def _made_of_another(given: _Given, name: str, strength: dict[str, Any]) -> GuideNetwork:
    """A guide of someone else's network: one that embeds sounds where background is given, else a classifier."""
    from duovox.classifiers.loading import load_network
    from duovox.repurposing import make_embedding_guide, make_guide
    from duovox.steering import changed

    network = load_network(given.source, given.weights, json_object(given.arguments))
    features = read_input(given.takes) if given.takes else None
    options: dict[str, Any] = {"name": name, "output": given.output, "strength": changed(GuideStrength(), strength)}
    options |= {} if given.temperature is None else {"temperature": given.temperature}
    if given.references or given.background:
        return make_embedding_guide(network, _named_sounds(given.references), _background(given.background), features, **options)
    labels = [label.strip() for label in given.labels.split(",")] if given.labels else None
    return make_guide(network, labels, features, output_kind=None if given.output_kind == "auto" else given.output_kind, **options)


def _named_sounds(paths: tuple[Path, ...]) -> dict[str, list[Path]]:
    """The sounds of each reference by its name."""
    from duovox.sound.folders import name_of, sounds_of

    heard = {name_of(path): sounds_of(path) for path in paths}
    if len(heard) < len(paths):
        raise ConfigError("two of the references have the same name; rename one of them")
    return heard


def _background(paths: tuple[Path, ...]) -> list[Any]:
    """Sounds to tell a reference from: files, all of a folder, or a clip of each speaker of a feature folder."""
    from duovox.data import open_features
    from duovox.repurposing.guide_making import one_of_each
    from duovox.sound.folders import sounds_of

    return [
        sound for path in paths for sound in (one_of_each(open_features(path)) if (path / "manifest.json").is_file() else sounds_of(path))
    ]


def _refuse_what_ours_know(given: _Given, *more: str) -> None:
    """Raise `ConfigError` for what a network of ours says itself, and for `more`."""
    said: dict[str, Any] = {"weights": given.weights, "takes": given.takes, "labels": given.labels, "output": given.output}
    said |= {name: getattr(given, name) for name in more}
    for name, value in said.items():
        if value:
            raise ConfigError(f"{given.source} is a network of ours and knows its own; leave --{name} out")


def _report(made: GuideNetwork, out: Path, levels: Any) -> None:
    """What was made, and how to use it."""
    from duovox.calibration import levels_table

    for note in made.config.notes:
        print(f"note: {note}")
    if levels:
        print(levels_table(levels))
    knows = f"knows {printable(listed(made.labels))}" if made.labels else "takes any sound for a target"
    print(f"{printable(str(out))} {knows}; next:")
    external = made.config.recipe.external
    words = ["duovox", "generate", "any", "--guide", f"{out}-{(*made.labels, 'FILE.wav')[0]}:{made.config.strength.gamma:g}"]
    print(f"  {shlex.join([*words, *['--trust-code'] * (external is not None and external.source != 'huggingface')])}")


def _fit(made: GuideNetwork, voice: Duovox, bundle: str) -> str:
    """What an evaluation of the voice costs with the guide, or why the two do not fit."""
    import numpy as np

    from duovox.costs import guided_gmacs
    from duovox.steering import aim, join, likened

    try:
        aimed = made if made.labels else likened(made, {"any": [np.zeros(voice.config.recipe.mel.clip_samples, np.float32)]}, voice.bundle)
        guide = aim(join(aimed, voice.bundle), voice.bundle, aimed.labels[0], {}).guide
    except GuideError as error:
        return f"note: {error}"
    model, at = voice.bundle.model, voice.config.recipe.sample.guide_at
    plain, guided = (guided_gmacs(model, at, more) for more in ((), (guide,)))
    return f"an evaluation of the voice {printable(bundle)} costs {guided:.2f} GMACs with it, {plain:.2f} without"
