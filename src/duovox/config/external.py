"""Settings of a classifier made elsewhere: what it takes, which layers are tapped, where it comes from."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from duovox.config.fields import check, check_labels, from_dict, require
from duovox.contracts import ConfigError
from duovox.text import read_text


@dataclass(frozen=True)
class MelInput:
    """The mel spectrogram that a classifier of someone else's takes: (log(max(mel, floor)) - shift) / scale.

    Centred framing (frame t around sample t * hop_length), Hann window, triangular filters. `power` 1 is the magnitude, 2 the
    power spectrum; `log` "db" is 10 log10, "none" leaves the mel linear. `normalise` comes before shift and scale: `item` is mean 0
    and standard deviation 1 per clip, `whisper` is (max(x, max(x) - 8) + 4) / 4. The defaults are our own mel, unscaled.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float = 8000.0
    frames: int = 64
    filters: Literal["slaney", "htk"] = "slaney"
    filter_norm: Literal["slaney", "none"] = "slaney"
    power: int = 1
    log: Literal["ln", "log10", "db", "none"] = "ln"
    floor: float = 1e-5
    normalise: Literal["none", "item", "whisper"] = "none"
    shift: float = 0.0
    scale: float = 1.0
    layout: Literal["B1MT", "BMT", "B1TM", "BTM"] = "B1MT"

    def __post_init__(self) -> None:
        check("mel_input", self, positive="sample_rate n_fft win_length hop_length n_mels frames floor scale")
        require(self.power in (1, 2), f"mel_input.power must be 1 (magnitude) or 2 (power), not {self.power}")
        require(self.win_length <= self.n_fft, f"mel_input.win_length {self.win_length} is longer than n_fft {self.n_fft}")
        require(0 <= self.fmin < self.fmax, f"mel_input.fmin {self.fmin} must lie below fmax {self.fmax}")
        require(self.fmax <= self.sample_rate / 2, f"mel_input.fmax {self.fmax} lies above half the sample rate {self.sample_rate}")


@dataclass(frozen=True)
class WaveInput:
    """The waveform that a classifier of someone else's takes: `samples` samples at `sample_rate` Hz, as (B, S) or (B, 1, S).

    `normalise` "item" is mean 0 and standard deviation 1 per clip (wav2vec 2.0's feature extractor).
    """

    sample_rate: int = 16000
    samples: int = 16000
    normalise: Literal["none", "item"] = "none"
    layout: Literal["BS", "B1S"] = "BS"

    def __post_init__(self) -> None:
        check("wave_input", self, positive="sample_rate samples")


@dataclass(frozen=True)
class TapConfig:
    """One tap of a classifier of someone else's: the layer's name, and which axis of its output is what.

    `axes` has one letter an axis: B batch, C channels, M mel rows, T time. E.g. BCMT, BTC, BCT, BTMC.
    """

    name: str
    axes: str

    def __post_init__(self) -> None:
        letters = sorted(self.axes)
        require(
            letters in (sorted("BCMT"), sorted("BCT"), sorted("BCM")),
            f"tap {self.name!r}: axes must be the letters B, C and T or M or both, each once (as BCMT or BTC), not {self.axes!r}",
        )


@dataclass(frozen=True)
class ExternalConfig:
    """A classifier of someone else's: its labels in the order of its outputs, where its network comes from, what it takes,
    which layers are tapped.

    `source` is how the network is rebuilt: `factory` calls `entry` ("package.module:function") with the keyword `arguments`;
    `huggingface` builds the class named `entry` of transformers with the configuration `arguments` (both JSON); `export` and
    `torchscript` are files that hold code and weights; `object` is a module that only its owner can give again. `output` names
    the entry that holds the logits where the network returns a dict, a tuple or an object (a number for a tuple).

    `output_kind` says what the network returns. Probabilities are read as log p, and both log p and log-probabilities less their
    mean over the labels: the softmax is the same, and the logsumexp is no constant. `output_axes` has one letter an axis: B batch,
    K labels, T (and M) positions of a network that answers for every frame; of several positions the mean of the
    log-probabilities is taken.

    `conditioned` says that the network is a copy that is fine-tuned on noise. `patch` is the side of the mel squares that one
    position of the decoder's finest stage covers.
    """

    labels: tuple[str, ...] = ()
    source: Literal["factory", "huggingface", "export", "torchscript", "object"] = "object"
    entry: str = ""
    arguments: str = "{}"
    mel_input: MelInput | None = None
    wave_input: WaveInput | None = None
    output: str = ""
    output_kind: Literal["logits", "probabilities", "log_probabilities"] = "logits"
    output_axes: str = "BK"
    taps: tuple[TapConfig, ...] = ()
    patch: int = 2
    conditioned: bool = False

    def __post_init__(self) -> None:
        check("external", self, positive="patch")
        require(
            (self.mel_input is None) != (self.wave_input is None),
            "external: say what the classifier takes, either mel_input or wave_input",
        )
        try:
            require(isinstance(json.loads(self.arguments), dict), "external.arguments must be a JSON object")
        except ValueError as error:
            raise ConfigError(f"external.arguments is no JSON: {error}") from None
        check_labels("external.labels", self.labels)
        require(
            sorted(self.output_axes) in (sorted("BK"), sorted("BKT"), sorted("BKMT")),
            f"external.output_axes must be the letters B and K and, for outputs of each frame, T or M and T, not {self.output_axes!r}",
        )
        names = [tap.name for tap in self.taps]
        require(len(set(names)) == len(names), f"external.taps: each layer once, not {names}")


def read_input(text: str) -> MelInput | WaveInput:
    """What a classifier takes, in short: `mel` (our own) or `wave`, which may be followed by a layout and, for one second of a
    wave, by its rate (mel:BMT, wave:B1S:8000); or the path of a TOML file with a table [mel_input] or [wave_input].
    Raises `ConfigError`.
    """
    kind, *rest = text.split(":")
    layout: dict[str, Any] = {"layout": rest.pop(0)} if rest and not rest[0].isdigit() else {}
    if kind == "mel" and not rest:
        return from_dict(MelInput, layout)
    if kind == "wave" and (not rest or (len(rest) == 1 and rest[0].isdigit())):
        rate = int(rest[0]) if rest else 16000
        return from_dict(WaveInput, {"sample_rate": rate, "samples": rate, **layout})
    if not text.endswith(".toml"):
        raise ConfigError(f"{text!r} does not say what the classifier takes; write mel, wave, wave:B1S:8000, or the path of a .toml file")
    try:
        data = tomllib.loads(read_text(Path(text)))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {text}: {error}") from None
    if set(data) == {"mel_input"}:
        return from_dict(MelInput, data["mel_input"], "mel_input")
    require(set(data) == {"wave_input"}, f"{text} must hold one table, [mel_input] or [wave_input], and nothing else")
    return from_dict(WaveInput, data["wave_input"], "wave_input")
