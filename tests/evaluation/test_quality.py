"""Quality without a reference: what is handed to whom, and what is refused. ONNX files are written here byte by byte."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from duovox.contracts import ConfigError
from duovox.evaluation.quality import HEARD, Quality, check_session, load_quality, onnx_scores, repeated, sampled

WAVES = np.random.default_rng(5).uniform(-0.5, 0.5, (5, 16000)).astype(np.float32)


class FakeSession:
    """An ONNX session that gives the mean of each wave, or what it is told to."""

    def __init__(
        self, takes: tuple[Any, ...] = ("batch", "samples"), kind: str = "tensor(float)", inputs: int = 1, gives: Any = None
    ) -> None:
        self.node, self.inputs, self.gives = SimpleNamespace(name="audio", shape=list(takes), type=kind), inputs, gives
        self.batches: list[int] = []

    def get_inputs(self) -> list[Any]:
        return [self.node] * self.inputs

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="mos")]

    def run(self, _: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        wave = given["audio"]
        assert wave.dtype == np.float32
        self.batches.append(len(wave))
        return [wave.mean(axis=1, keepdims=True) if self.gives is None else self.gives(wave)]


def test_scores_of_batches_are_those_of_each_clip() -> None:
    session = FakeSession()
    assert onnx_scores(session, "x", 2, WAVES) == pytest.approx(WAVES.mean(axis=1), abs=1e-6)
    assert session.batches == [2, 2, 1]
    assert onnx_scores(FakeSession(gives=lambda w: w[:, 3]), "x", 16, WAVES).tolist() == WAVES[:, 3].tolist()


@pytest.mark.parametrize("takes", [("batch", "samples"), (None, None), (1, 16000), ("batch", 16000)])
def test_networks_of_waves_of_a_second_fit(takes: tuple[Any, ...]) -> None:
    assert check_session(FakeSession(takes), "x") is (takes[0] == 1)


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (FakeSession(("b", 144160)), r"takes tensor\(float\) of shape \('b', 144160\), not float32 waves \(B, 16000\) at 16000 Hz"),
        (FakeSession(("b", 1, "s")), "not float32 waves"),
        (FakeSession((8, "s")), "not float32 waves"),
        (FakeSession(kind="tensor(double)"), r"takes tensor\(double\)"),
        (FakeSession(inputs=2), "2 inputs and 1 outputs"),
    ],
    ids=["length", "rank", "batch", "type", "inputs"],
)
def test_networks_of_anything_else_are_refused(session: FakeSession, message: str) -> None:
    with pytest.raises(ConfigError, match=f"x.onnx .*{message}|x.onnx has {message}"):
        check_session(session, "x.onnx")


def failing(_: np.ndarray) -> np.ndarray:
    raise RuntimeError("no such kernel\nand more")


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda w: w[:, :3], r"gives shape \(5, 3\) for 5 clips"),
        (lambda w: w[:1], r"gives shape \(1, 16000\)"),
        (lambda w: np.full((len(w), 1), np.nan), "not finite for 5 of 5 clips"),
        (failing, "failed on 5 clips: no such kernel$"),
    ],
    ids=["embedding", "waves", "nan", "raises"],
)
def test_outputs_that_are_no_scores_are_refused(gives: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        onnx_scores(FakeSession(gives=gives), "x.onnx", 16, WAVES)


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, value: int | str | bytes) -> bytes:
    """One protobuf field: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx_file(path: Path, operator: str = "ReduceMean", takes: tuple[str, ...] = ("batch", "samples")) -> Path:
    """An ONNX network of one operator over the last axis (https://github.com/onnx/onnx, onnx.proto3), float32."""

    def value(name: str, shape: tuple[str, ...]) -> bytes:
        dimensions = b"".join(field(1, field(2, side)) for side in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dimensions)))

    axes = field(1, "axes") + field(8, 1) + field(20, 7)
    node = field(1, "audio") + field(2, "mos") + field(4, operator) + field(5, axes)
    graph = field(1, node) + field(2, "tiny") + field(11, value("audio", takes)) + field(12, value("mos", ("batch", "one")))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 13)))
    return path


def test_an_onnx_file_is_run(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime (extra quality) is absent")
    quality = load_quality(str(onnx_file(tmp_path / "scoreq.onnx")))
    assert quality.name == "scoreq" and "sha256" in quality.about
    assert quality.score(WAVES) == pytest.approx(WAVES.mean(axis=1), abs=1e-6)


def test_onnx_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime (extra quality) is absent")
    with pytest.raises(ConfigError, match=r"takes .* not float32 waves"):
        load_quality(str(onnx_file(tmp_path / "mel.onnx", takes=("batch", "mels", "frames"))))
    with pytest.raises(ConfigError, match="cannot be opened as an ONNX network"):
        load_quality(str(onnx_file(tmp_path / "odd.onnx", operator="NoSuchOperator")))
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ConfigError, match=r"text\.onnx cannot be opened as an ONNX network"):
        load_quality(str(tmp_path / "text.onnx"))


def test_other_words_missing_files_and_missing_packages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no quality measure 'pesq'; give dnsmos, or the path of an ONNX file"):
        load_quality("pesq")
    with pytest.raises(ConfigError, match="no such ONNX file"):
        load_quality(str(tmp_path / "nowhere.onnx"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "speechmos", None)
    for which in (str(onnx_file(tmp_path / "scoreq.onnx")), "dnsmos"):
        with pytest.raises(ConfigError, match=r"pip install 'duovox\[quality\]'"):
            load_quality(which)


def test_dnsmos_hears_each_clip_repeated_and_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[np.ndarray] = []

    def fake_run(wave: np.ndarray, sr: int) -> dict[str, float]:
        assert sr == 16000 and len(wave) == HEARD
        heard.append(wave)
        return {"ovrl_mos": float(wave[0]), "sig_mos": 9.0}

    package, module = ModuleType("speechmos"), ModuleType("speechmos.dnsmos")
    module.run = fake_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "speechmos", package)
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", module)
    quality = load_quality("dnsmos")
    assert quality.name == "DNSMOS OVRL"
    assert quality.score(4 * WAVES) == pytest.approx(np.clip(4 * WAVES[:, 0], -1, 1))
    assert np.array_equal(heard[0][16000:32000], np.clip(4 * WAVES[0], -1, 1)) and np.abs(heard[0]).max() == 1


def test_long_waves_are_not_repeated() -> None:
    assert len(repeated(np.zeros(HEARD + 5, np.float32))) == HEARD + 5


def test_a_sample_of_each_set_is_measured_once() -> None:
    asked: list[int] = []

    def first(waves: np.ndarray) -> np.ndarray:
        asked.append(len(waves))
        return waves[:, 0].astype(np.float64)

    few = sampled(Quality("first", "the first sample", first), 3)
    waves = np.arange(10, dtype=np.float32)[:, None].repeat(4, axis=1)
    assert few.score(waves).tolist() == [0.0, 4.0, 9.0] and few.score(waves).tolist() == [0.0, 4.0, 9.0]
    assert few.score(waves[:2]).tolist() == [0.0, 1.0] and asked == [3, 2]
    assert few.about == "the first sample; on at most 3 clips of each set, evenly taken"
    with pytest.raises(ConfigError, match="at least 1 clip"):
        sampled(few, 0)
