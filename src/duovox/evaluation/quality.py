"""Speech quality without a reference: takes waves from `report`, gives one score a clip, by DNSMOS or by a network of the user's.

DNSMOS (Reddy et al. 2022, arXiv 2110.01763) comes inside the package speechmos. SCOREQ (Ragano et al. 2024, arXiv 2410.06675) and
others like it come as an ONNX file: float32 waves (B, S) at 16 kHz in, (B, 1) or (B,) out. Both need the extra `quality`.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from duovox.contracts import ConfigError
from duovox.evaluation.judge import CLIP_SAMPLES, SAMPLE_RATE

HEARD = int(9.01 * SAMPLE_RATE)
"""Samples that DNSMOS hears."""

_BATCH = 16


@dataclass(frozen=True)
class Quality:
    """A measure: the name of its column, what it is in full, and waves (N, 16000) at 16 kHz in [-1, 1] -> scores (N,), higher better."""

    name: str
    about: str
    score: Callable[[NDArray[np.float32]], NDArray[np.float64]]


def load_quality(which: str) -> Quality:
    """`dnsmos`, or the path of an ONNX file. Raises `ConfigError` for anything else, a missing package, or a network that does not fit."""
    if which == "dnsmos":
        dnsmos = _package("speechmos.dnsmos")
        return Quality(
            "DNSMOS OVRL", "DNSMOS of speechmos, each clip repeated to 9 s: it falls below that of long speech", partial(_dnsmos, dnsmos)
        )
    if not which.lower().endswith(".onnx"):
        raise ConfigError(f"no quality measure {which!r}; give dnsmos, or the path of an ONNX file (.onnx)")
    path = Path(which)
    session = _open_session(path)
    fixed = check_session(session, str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Quality(path.stem, f"{path.name}, sha256 `{digest[:16]}`", partial(onnx_scores, session, path.name, 1 if fixed else _BATCH))


def sampled(measure: Quality, most: int) -> Quality:
    """The same measure of at most `most` clips of a set, evenly taken. A set that it knows is not measured again. Raises `ConfigError`
    for less than one clip."""
    if most < 1:
        raise ConfigError(f"quality is measured on at least 1 clip of a set, not {most}")
    known: dict[bytes, NDArray[np.float64]] = {}

    def score(waves: NDArray[np.float32]) -> NDArray[np.float64]:
        chosen = waves[np.unique(np.linspace(0, len(waves) - 1, min(most, len(waves))).round().astype(int))]
        key = hashlib.sha256(chosen.tobytes()).digest()
        if key not in known:
            known[key] = measure.score(chosen)
        return known[key]

    return Quality(measure.name, f"{measure.about}; on at most {most} clips of each set, evenly taken", score)


def repeated(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """A short wave repeated to exactly what DNSMOS hears: speechmos would hear the same clip of a second at seven offsets."""
    return np.resize(wave, HEARD) if len(wave) < HEARD else wave


def _dnsmos(dnsmos: Any, waves: NDArray[np.float32]) -> NDArray[np.float64]:
    clipped = (np.clip(wave, -1, 1) for wave in tqdm(waves, desc="DNSMOS", leave=False))
    return np.array([dnsmos.run(repeated(wave), sr=SAMPLE_RATE)["ovrl_mos"] for wave in clipped], np.float64)


def check_session(session: Any, where: str) -> bool:
    """Whether the network of an ONNX session takes one clip at a time. Raises `ConfigError` unless it takes waves of a second."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConfigError(f"{where} has {len(inputs)} inputs and {len(outputs)} outputs; a quality measure has one of each")
    shape, kind = list(inputs[0].shape), inputs[0].type
    fits = (
        len(shape) == 2 and (not isinstance(shape[0], int) or shape[0] == 1) and (not isinstance(shape[1], int) or shape[1] == CLIP_SAMPLES)
    )
    if kind != "tensor(float)" or not fits:
        raise ConfigError(f"{where} takes {kind} of shape {tuple(shape)}, not float32 waves (B, {CLIP_SAMPLES}) at {SAMPLE_RATE} Hz")
    return isinstance(shape[0], int)


def onnx_scores(session: Any, where: str, batch: int, waves: NDArray[np.float32]) -> NDArray[np.float64]:
    """waves (N, S) -> scores (N,) by an ONNX session. Raises `ConfigError` where it fails or gives anything but one number a clip."""
    name, parts = session.get_inputs()[0].name, []
    for start in tqdm(range(0, len(waves), batch), desc=where, leave=False):
        given = np.ascontiguousarray(waves[start : start + batch], np.float32)
        try:
            found = np.asarray(session.run(None, {name: given})[0], np.float64)
        except Exception as error:  # onnxruntime raises kinds of its own, and the network may be any
            raise ConfigError(f"{where} failed on {len(given)} clips: {_first_line(error)}") from None
        if found.shape not in ((len(given), 1), (len(given),)):
            raise ConfigError(
                f"{where} gives shape {found.shape} for {len(given)} clips, not one score each (a network without reference?)"
            )
        parts.append(found.reshape(len(given)))
    scores = np.concatenate(parts)
    if not np.isfinite(scores).all():
        raise ConfigError(f"{where} gives scores that are not finite for {int((~np.isfinite(scores)).sum())} of {len(scores)} clips")
    return scores


def _open_session(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: no such ONNX file")
    runtime = _package("onnxruntime")
    try:
        return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises kinds of its own
        raise ConfigError(f"{path} cannot be opened as an ONNX network: {_first_line(error)}") from None


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"this quality measure needs more packages ({_first_line(error)}): pip install 'duovox[quality]'") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
