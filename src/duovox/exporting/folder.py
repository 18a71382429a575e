"""The folder of an exported voice: takes a bundle, gives ONNX graphs, one file of their weights and a manifest, checked, written whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import duovox
from duovox.bundle import Bundle
from duovox.config import to_dict
from duovox.contracts import OutputError
from duovox.exporting.checking import ClipsCompared, Difference, compare, compare_clips, require_same
from duovox.exporting.conversion import to_onnx
from duovox.exporting.parts import Part, parts_of
from duovox.exporting.weights import WeightFile, narrowed, without_notes
from duovox.files import write_folder
from duovox.lite.manifest import FORMAT, MANIFEST, WEIGHTS, GraphFacts, Manifest, PrecisionName, facts_of
from duovox.lite.sessions import Run, open_graph
from duovox.lite.voice import Voice
from duovox.voice import Duovox

OLDEST_RUNTIME = "1.20"
"""The oldest onnxruntime that is promised to run the graphs."""


@dataclass(frozen=True)
class Exported:
    """What an export made: its files by name, the manifest (also among them), and the clips that were compared."""

    manifest: Manifest
    files: dict[str, bytes]
    clips: ClipsCompared


def export(voice: Duovox, precision: PrecisionName = "fp32", tell: Callable[[str], None] = lambda _: None) -> Exported:
    """A voice as files that run without PyTorch. `tell` is given a line for each thing measured.

    Raises `BundleError` for a bundle without a neural vocoder, `ClassifierError` for a network that has no ONNX form (with the layer and
    its operation) or takes ways that depend on its input.
    """
    bundle, weights = voice.bundle, WeightFile()
    graphs: dict[str, GraphFacts] = {}
    files: dict[str, bytes] = {}
    runs: dict[str, Run] = {}
    opset = 0
    for part in parts_of(bundle):
        model = without_notes(to_onnx(part, bundle.model.classifier.network))
        require_same(part, compare(part, open_graph(model.SerializeToString(), part.inputs, OLDEST_RUNTIME)))
        model = narrowed(model, precision)
        runs[part.name] = open_graph(model.SerializeToString(), part.inputs, OLDEST_RUNTIME)
        difference = compare(part, runs[part.name])
        tell(f"{part.name}: differs from PyTorch by {_shown(difference)} on fresh inputs ({precision})")
        graphs[part.name] = _facts(part, difference)
        files[graphs[part.name].file] = weights.take_from(model)
        opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    files[WEIGHTS] = weights.content
    manifest = _manifest(bundle, precision, graphs, opset, files)
    clips = compare_clips(voice, Voice.of(manifest, runs))
    tell(_clips_line(clips))
    manifest = replace(manifest, measured={"clips": asdict(clips)})
    files[MANIFEST] = (json.dumps(to_dict(manifest), indent=2) + "\n").encode()
    return Exported(manifest, files, clips)


def write_exported(exported: Exported, folder: str | Path, force: bool = False) -> None:
    """Write an export into a folder, whole or not at all. Raises `OutputError` where something is there, unless it is an exported voice
    and `force` is given."""
    place = Path(os.path.realpath(folder))
    check_place(place, MANIFEST, force)
    write_folder(place, exported.files, "the exported voice")


def check_place(folder: Path, mark: str, force: bool) -> None:
    """Raise `OutputError` unless a folder may be written: it is not there, or empty, or `force` replaces one that holds the file `mark`."""
    try:
        names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from None
    if names and mark not in names:
        raise OutputError(f"{folder} exists and was not made by `duovox export`; choose another place")
    if names and not force:
        raise OutputError(f"{folder} exists; use --force to replace it")


def _facts(part: Part, difference: Difference) -> GraphFacts:
    return GraphFacts(f"{part.name}.onnx", part.inputs, (part.output,), difference.largest, difference.mean)


def _manifest(bundle: Bundle, precision: PrecisionName, graphs: dict[str, GraphFacts], opset: int, files: dict[str, bytes]) -> Manifest:
    config = bundle.config
    return Manifest(
        format=FORMAT,
        duovox=duovox.__version__,
        bundle=config.digest,
        labels=config.labels,
        mel=config.recipe.mel,
        mel_scale=config.mel_scale,
        noise=config.recipe.noise,
        sample=config.recipe.sample,
        classifier=graphs["classifier"],
        step=graphs["step"],
        vocoder=graphs["vocoder"],
        opset=opset,
        onnxruntime=OLDEST_RUNTIME,
        precision=precision,
        files={name: asdict(facts_of(content)) for name, content in files.items()},
        languages=config.languages,
    )


def _shown(difference: Difference) -> str:
    return f"{difference.largest:.1e} at most, {difference.mean:.1e} on average"


def _clips_line(clips: ClipsCompared) -> str:
    return (
        f"clips: log-mels differ by {_shown(clips.sampled)}, those of the waves by {clips.heard.mean:.1e} on average; "
        f"{clips.by} hears the word in {clips.correct} of {clips.clips} (PyTorch: {clips.correct_in_torch})"
    )
