"""A voice without PyTorch: the clips and answers of the one with it, and a word for everything that can be wrong with its folder."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duovox.config import SampleConfig
from duovox.contracts import BundleError, ConfigError, DuovoxError, GenerationError, LabelError
from duovox.exporting.folder import Exported, student_alone, write_exported
from duovox.lite import Voice
from duovox.lite.manifest import MANIFEST, WEIGHTS
from duovox.lite.sessions import version_of
from duovox.sound.audio import write_audio
from duovox.voice import Duovox

SETTINGS: list[dict[str, Any]] = [
    {},
    {"sampler": "dpmpp_2m", "steps": 5},
    {"sampler": "euler_maruyama", "steps": 4},
    {"gamma": 0.0},
    {"interval": (0.1, 5.0), "schedule": "early", "gamma": 0.5},
    {"preset": "turbo"},
    {"sampler": "student", "steps": 1, "gamma": 0.4},
    {"preset": "turbo", "steps": 4},
]

NOT_TAUGHT: list[dict[str, Any]] = [
    {"preset": "turbo", "steps": 3},
    {"preset": "turbo", "gamma": 3.0},
    {"sampler": "student"},
    {"sampler": "student", "steps": 2, "interval": (0.1, 2.0)},
    {"preset": "turbo", "schedule": "early"},
    {"preset": "turbo", "guide_at": "estimate"},
]


@pytest.fixture
def voice(exported_folder: Path) -> Voice:
    return Voice(exported_folder, threads=1)


@pytest.fixture
def copy(exported_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported_folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def without_student(copy: Path) -> Path:
    """A folder as it was before there were students."""
    return rewritten(copy, lambda data: {name: value for name, value in data.items() if name not in ("student", "repertoire")})


def rewritten(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """The folder, with another manifest."""
    data = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(change(data)))
    return folder


@pytest.mark.parametrize("changes", SETTINGS)
@pytest.mark.parametrize("label", ["seven", None])
def test_the_clips_of_torch(small_voice: Duovox, voice: Voice, label: str | None, changes: dict[str, Any]) -> None:
    """Also for seeds beyond 32 bits, which PyTorch cuts."""
    for seed in (3, 2**40 + 1):
        ours = voice.generate(label, seed=seed, keep_faulty=True, **changes)[0]
        theirs = small_voice.generate(label, seed=seed, keep_faulty=True, **changes)[0]
        np.testing.assert_allclose(ours.log_mel, theirs.log_mel, rtol=0, atol=1e-3)
        np.testing.assert_allclose(ours.wave, theirs.wave, rtol=0, atol=1e-3)
        assert (ours.label, ours.seed, ours.rate, ours.settings, ours.fault) == (
            theirs.label,
            seed,
            theirs.rate,
            theirs.settings,
            theirs.fault,
        )
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-3)


def test_a_clip_is_the_same_in_any_batch(voice: Voice) -> None:
    alone = [voice.generate("one", seed=seed, keep_faulty=True)[0] for seed in range(5)]
    together = voice.generate("one", 5, batch=3, keep_faulty=True)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.log_mel, other.log_mel, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_the_answers_of_torch(small_voice: Duovox, voice: Voice, tmp_path: Path, rate: int) -> None:
    """For a longer sound at another rate too: the same second counts, and the same is said of it."""
    wave = np.random.default_rng(0).standard_normal(rate) * np.linspace(0, 0.3, rate)
    path = write_audio(tmp_path / "sound.wav", wave, rate)
    ours, theirs = voice.listen(path), small_voice.listen(path)
    assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-5) and ours.notes == theirs.notes != ()
    np.testing.assert_allclose(ours.log_mel, theirs.log_mel, rtol=0, atol=1e-4)
    assert voice.classify(wave, rate) == pytest.approx(small_voice.classify(wave, rate), abs=1e-5)


@pytest.mark.parametrize("changes", NOT_TAUGHT)
def test_what_the_student_was_not_taught_is_refused_in_the_words_of_torch(
    small_voice: Duovox, voice: Voice, changes: dict[str, Any]
) -> None:
    with pytest.raises(GenerationError) as theirs:
        small_voice.generate("one", **changes)
    with pytest.raises(GenerationError, match=f"^{re.escape(str(theirs.value))}$"):
        voice.generate("one", **changes)


def test_a_student_of_one_gamma(copy: Path) -> None:
    def fixed(data: dict[str, Any]) -> dict[str, Any]:
        return data | {"repertoire": data["repertoire"] | {"gammas": [0.3]}}

    voice = Voice(rewritten(copy, fixed))
    assert voice.settings(preset="turbo").gamma == 0.3
    with pytest.raises(GenerationError, match=r"the student was taught gamma 0\.3, not 2; set gamma to that, or take another sampler"):
        voice.generate("one", preset="turbo", gamma=2)


def test_an_older_folder_without_a_student(without_student: Path, voice: Voice) -> None:
    older = Voice(without_student)
    np.testing.assert_array_equal(older.generate("one", seed=3)[0].wave, voice.generate("one", seed=3)[0].wave)
    with pytest.raises(BundleError, match="turbo needs a distilled student, and this voice was exported without one"):
        older.generate("one", preset="turbo")
    with pytest.raises(BundleError, match="exported without a student; export a bundle that has one, or take another sampler"):
        older.generate("one", sampler="student", steps=2)


def test_a_voice_of_its_student_alone(exported: Exported, voice: Voice, tmp_path: Path) -> None:
    write_exported(student_alone(exported), tmp_path / "voice")
    alone = Voice(tmp_path / "voice")
    np.testing.assert_array_equal(alone.generate("one", seed=3)[0].wave, voice.generate("one", seed=3, preset="turbo")[0].wave)
    for changes, sampler in (({"preset": "quality"}, "euler_maruyama"), ({"sampler": "heun", "steps": 14}, "heun")):
        with pytest.raises(BundleError, match=f"sampler {sampler}: this voice was exported with its student alone; use preset turbo"):
            alone.generate("one", **changes)


def test_what_people_call_a_word(voice: Voice) -> None:
    assert [voice.resolve_label(asked) for asked in ("seven", "Seven", "7", "0")] == ["seven", "seven", "seven", "null"]
    with pytest.raises(LabelError, match=r"unknown label 'sevn'; the nearest: seven; this model speaks: null \(de\), one \(en\), seven"):
        voice.generate("sevn")


@pytest.mark.parametrize("name", ["classifier.onnx", "step.onnx", "student.onnx", "vocoder.onnx", WEIGHTS])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing; export the bundle again"):
        Voice(copy)


@pytest.mark.parametrize("name", ["classifier.onnx", "step.onnx", "student.onnx", "vocoder.onnx", WEIGHTS])
@pytest.mark.parametrize("cut", [False, True])
def test_an_altered_file_is_named(copy: Path, name: str, cut: bool) -> None:
    """One byte changed, and the end missing."""
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content[:-1] if cut else content)
    with pytest.raises(BundleError, match=f"{name} is not the file manifest.json names"):
        Voice(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format 2, this duovox reads format 1"),
        ({"format": True}, "format True"),
        ({"labels": []}, "labels must be different names"),
        ({"mel": {"n_mels": 0}}, "mel.n_mels must be positive"),
        ({"surprise": 1}, "surprise"),
        ({"files": 3}, "files"),
        (
            {"step": {"file": "step.onnx", "inputs": ["noised", "sigma", "to"], "outputs": ["denoised"]}},
            "inputs that this duovox does not know",
        ),
        ({"repertoire": None}, "student and repertoire go together"),
        ({"step": None, "student": None, "repertoire": None}, "a voice needs a step, a student, or both"),
        ({"repertoire": {"levels": [], "gammas": [3.0]}}, "repertoire.levels must not be empty"),
        ({"repertoire": {"levels": [[0.0]], "gammas": [3.0]}}, "repertoire.levels: from one level at least to 0"),
        ({"repertoire": {"levels": [[2.0, 1.0]], "gammas": [3.0]}}, "must fall to 0"),
        ({"files": {"step.onnx": {"size": "big"}}}, "files.step.onnx.size: expected int"),
        ({"files": {"step.onnx": 7}}, "files.step.onnx: expected size and sha256"),
        ({"files": {"../else": {"size": 1, "sha256": "0"}}}, "is no name of a file in the folder"),
        ({"files": {"step.onnx": {"size": 1, "sha256": "0"}}}, "classifier.onnx is not among them"),
    ],
)
def test_a_manifest_that_cannot_be(copy: Path, changes: dict[str, Any], words: str) -> None:
    data = json.loads((copy / MANIFEST).read_text()) | changes
    (copy / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(BundleError, match=words):
        Voice(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "\u00e9".encode("latin-1")])
def test_a_manifest_that_is_none(copy: Path, content: str | bytes) -> None:
    (copy / MANIFEST).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Voice(copy)


def test_a_folder_that_is_no_exported_voice(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no exported voice"):
        Voice(tmp_path)
    with pytest.raises(BundleError, match="is no exported voice"):
        Voice(tmp_path / "nowhere")


def test_an_old_onnxruntime(copy: Path) -> None:
    data = json.loads((copy / MANIFEST).read_text()) | {"onnxruntime": "99.1"}
    (copy / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"needs onnxruntime 99\.1 or newer, here is .*: pip install -U onnxruntime"):
        Voice(copy).generate("one")


def test_versions_are_numbers() -> None:
    assert version_of("1.9.0") < version_of("1.20") < version_of("1.20.1") < version_of("1.100.0rc1") < version_of("2.0")


def test_no_onnxruntime(voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DuovoxError, match=r"onnxruntime is not installed: pip install"):
        voice.generate("one")


def test_settings_the_step_was_not_made_for(voice: Voice) -> None:
    with pytest.raises(ConfigError, match="guided at 'noised', not at 'estimate'"):
        voice.generate("one", guide_at="estimate")
    assert voice.settings(preset="quality").steps == voice.settings().changed({"preset": "quality"}).steps
    with pytest.raises(ConfigError, match="neural vocoder alone"):
        voice.generate_batch([("one", 0)], vocoder="griffin_lim")
    with pytest.raises(ConfigError, match="steps"):
        voice.generate("one", settings=SampleConfig(), steps=0)


@pytest.mark.parametrize("bad", [{"n": 0}, {"seed": -1}, {"seed": 2**63}, {"batch": 0}])
def test_requests_that_cannot_be(voice: Voice, bad: dict[str, int]) -> None:
    with pytest.raises(GenerationError):
        voice.generate("one", **bad)  # type: ignore[arg-type]


def test_clips_that_ran_off(voice: Voice) -> None:
    with pytest.raises(GenerationError, match="ran off to no speech"):
        voice.generate("one", gamma=1e6)
