"""The exported folder: what is in it, that it is PyTorch's equal, and where it may be written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from duovox.config import Repertoire
from duovox.contracts import BundleError, OutputError
from duovox.exporting.folder import Exported, student_alone, write_exported
from duovox.exporting.parts import parts_of
from duovox.lite.manifest import MANIFEST, WEIGHTS, check_files, read_manifest
from duovox.voice import Duovox


def test_every_graph_is_pytorchs_equal(exported: Exported) -> None:
    for name, facts in exported.manifest.graphs.items():
        assert 0 < facts.max_error < 1e-4 and facts.mean_error < 1e-5, name
    assert set(exported.manifest.graphs) == {"classifier", "step", "student", "vocoder"} and exported.student_clips is not None
    for clips in (exported.clips, exported.student_clips):
        assert clips.sampled.largest < 1e-3 and clips.correct == clips.correct_in_torch


def test_the_manifest_says_what_the_bundle_says(small_voice: Duovox, exported: Exported, exported_folder: Path) -> None:
    manifest, config = read_manifest(exported_folder), small_voice.config
    assert manifest == exported.manifest and manifest.languages == {"null": "de", "one": "en"}
    assert (manifest.labels, manifest.mel, manifest.mel_scale) == (config.labels, config.recipe.mel, config.mel_scale)
    assert (manifest.noise, manifest.sample, manifest.bundle) == (config.recipe.noise, config.recipe.sample, config.digest)
    assert manifest.step is not None and manifest.step.inputs == ("noised", "sigma", "label", "gamma") and manifest.opset >= 18
    assert manifest.student is not None and manifest.student.inputs == ("noised", "sigma", "to", "label", "gamma")
    assert manifest.repertoire == Repertoire(((80.0, 0.0), (80.0, 2.0, 0.0), (80.0, 20.0, 2.0, 0.2, 0.0)), (0.3, 0.5))
    assert manifest.measured["clips"]["clips"] == manifest.measured["student_clips"]["clips"] == 3


def test_a_voice_of_its_student_alone(exported: Exported, tmp_path: Path) -> None:
    """The step's own weights go with it, those of the classifier stay; the student's settings are its own."""
    alone = student_alone(exported)
    write_exported(alone, tmp_path / "voice")
    manifest = read_manifest(tmp_path / "voice")
    check_files(tmp_path / "voice", manifest.files)
    assert manifest == alone.manifest and set(manifest.graphs) == {"classifier", "student", "vocoder"}
    assert len(alone.files[WEIGHTS]) < len(exported.files[WEIGHTS]) and exported.manifest.step is not None
    assert (manifest.sample.preset, manifest.sample.sampler, manifest.sample.steps, manifest.sample.gamma) == ("turbo", "student", 4, 0.3)
    assert manifest.measured == exported.manifest.measured


def test_the_files_are_those_named(exported_folder: Path) -> None:
    manifest = read_manifest(exported_folder)
    check_files(exported_folder, manifest.files)
    assert {path.name for path in exported_folder.iterdir()} == {
        MANIFEST,
        WEIGHTS,
        "classifier.onnx",
        "step.onnx",
        "student.onnx",
        "vocoder.onnx",
    }
    assert set(manifest.files) == {path.name for path in exported_folder.iterdir()} - {MANIFEST}


def test_the_classifier_has_no_weights_of_its_own(exported: Exported) -> None:
    """Its weights are those of the step."""
    assert len(exported.files["classifier.onnx"]) < 60_000


def test_nothing_but_an_exported_voice_is_replaced(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="was not made by `duovox export`"):
        write_exported(exported, tmp_path / "mine", force=True)
    write_exported(exported, tmp_path / "new")
    with pytest.raises(OutputError, match="--force"):
        write_exported(exported, tmp_path / "new")
    write_exported(exported, tmp_path / "new", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "new"]


def test_a_place_that_cannot_be_written_leaves_nothing(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_exported(exported, tmp_path / "file" / "voice")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_bundle_without_a_neural_vocoder_is_refused(small_voice: Duovox) -> None:
    with pytest.raises(BundleError, match="no neural vocoder"):
        parts_of(replace(small_voice.bundle, vocoder=None))


def test_the_manifest_is_plain_json(exported_folder: Path) -> None:
    data = json.loads((exported_folder / MANIFEST).read_text())
    assert data["format"] == 1 and data["files"][WEIGHTS]["size"] == (exported_folder / WEIGHTS).stat().st_size
