"""The folder of an exported voice: takes a bundle, gives ONNX graphs, one file of their weights and a manifest, checked, written whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duovox
from duovox.bundle import Bundle
from duovox.config import SampleConfig, to_dict
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

if TYPE_CHECKING:
    import onnx

OLDEST_RUNTIME = "1.20"
"""The oldest onnxruntime that is promised to run the graphs."""


@dataclass(frozen=True)
class Exported:
    """What an export made: its files by name, the manifest (also among them), the clips that were compared, by the bundle's own settings
    and, where it has a student, by its; and the graphs with their weights."""

    manifest: Manifest
    files: dict[str, bytes]
    clips: ClipsCompared
    student_clips: ClipsCompared | None
    models: dict[str, onnx.ModelProto]


def export(voice: Duovox, precision: PrecisionName = "fp32", tell: Callable[[str], None] = lambda _: None) -> Exported:
    """A voice as files that run without PyTorch. `tell` is given a line for each thing measured.

    Raises `BundleError` for a bundle without a neural vocoder, `ClassifierError` for a network that has no ONNX form (with the layer and
    its operation) or takes ways that depend on its input.
    """
    bundle = voice.bundle
    graphs: dict[str, GraphFacts] = {}
    models: dict[str, onnx.ModelProto] = {}
    runs: dict[str, Run] = {}
    for part in parts_of(bundle):
        model = without_notes(to_onnx(part, bundle.model.classifier.network))
        require_same(part, compare(part, open_graph(model.SerializeToString(), part.inputs, OLDEST_RUNTIME)))
        models[part.name] = narrowed(model, precision)
        runs[part.name] = open_graph(models[part.name].SerializeToString(), part.inputs, OLDEST_RUNTIME)
        difference = compare(part, runs[part.name])
        tell(f"{part.name}: differs from PyTorch by {_shown(difference)} on fresh inputs ({precision})")
        graphs[part.name] = _facts(part, difference)
    files = packed(models)
    manifest = _manifest(bundle, precision, graphs, _opset(models), files)
    clips = {name: compare_clips(voice, Voice.of(manifest, runs), settings) for name, settings in _compared(bundle).items()}
    for name, compared in clips.items():
        tell(_clips_line(name.replace("_", " "), compared))
    manifest = replace(manifest, measured={name: asdict(compared) for name, compared in clips.items()})
    return Exported(manifest, _with_manifest(files, manifest), clips["clips"], clips.get("student_clips"), models)


def student_alone(exported: Exported) -> Exported:
    """The same voice without its step, which the student stands for: preset turbo is its own."""
    models = {name: model for name, model in exported.models.items() if name != "step"}
    files, before = packed(models), exported.manifest
    manifest = replace(before, step=None, sample=before.sample.changed({"preset": "turbo"}), files=_facts_of(files))
    return replace(exported, manifest=manifest, files=_with_manifest(files, manifest), models=models)


def packed(models: Mapping[str, onnx.ModelProto]) -> dict[str, bytes]:
    """The files of graphs: one each, and one for all their weights."""
    weights = WeightFile()
    files = {f"{name}.onnx": weights.take_from(model) for name, model in models.items()}
    return {**files, WEIGHTS: weights.content}


def _with_manifest(files: dict[str, bytes], manifest: Manifest) -> dict[str, bytes]:
    return {**files, MANIFEST: (json.dumps(to_dict(manifest), indent=2) + "\n").encode()}


def _compared(bundle: Bundle) -> dict[str, SampleConfig]:
    """The settings of the clips to compare: the bundle's own, and its student's."""
    own = bundle.config.recipe.sample
    if bundle.student is None:
        return {"clips": own}
    return {"clips": own, "student_clips": bundle.student.repertoire.nearest(own.changed({"preset": "turbo"}))}


def _opset(models: Mapping[str, onnx.ModelProto]) -> int:
    return max(entry.version for model in models.values() for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


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
        vocoder=graphs["vocoder"],
        opset=opset,
        onnxruntime=OLDEST_RUNTIME,
        precision=precision,
        files=_facts_of(files),
        languages=config.languages,
        step=graphs["step"],
        student=graphs.get("student"),
        repertoire=None if bundle.student is None else bundle.student.repertoire,
    )


def _facts_of(files: dict[str, bytes]) -> dict[str, Any]:
    return {name: asdict(facts_of(content)) for name, content in files.items()}


def _shown(difference: Difference) -> str:
    return f"{difference.largest:.1e} at most, {difference.mean:.1e} on average"


def _clips_line(name: str, clips: ClipsCompared) -> str:
    return (
        f"{name}: log-mels differ by {_shown(clips.sampled)}, those of the waves by {clips.heard.mean:.1e} on average; "
        f"{clips.by} hears the word in {clips.correct} of {clips.clips} (PyTorch: {clips.correct_in_torch})"
    )
