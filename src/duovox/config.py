"""Every setting of duovox, as frozen dataclasses that check themselves; TOML and JSON in and out.

Takes plain dictionaries from recipes, bundles and checkpoints; gives checked settings to every other module.
A setting stands here once and nowhere else. Nothing here imports torch, so that `duovox --help` stays fast.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from duovox.contracts import ConfigError

T = TypeVar("T")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _check(where: str, settings: Any, positive: str = "", not_negative: str = "", may_be_infinite: str = "") -> None:
    """What holds for every group of settings: choices are among their literals, numbers finite, the named ones in range."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(kind) is Literal:
            _require(value in get_args(kind), f"{where}.{name}: {value!r} is none of {', '.join(map(repr, get_args(kind)))}")
        if kind is float and not (name in may_be_infinite.split() and value == math.inf):
            _require(math.isfinite(value), f"{where}.{name} must be finite, not {value}")
    for name in positive.split():
        value = getattr(settings, name)
        _require(all(v > 0 for v in (value if isinstance(value, tuple) else (value,))), f"{where}.{name} must be positive, not {value}")
    for name in not_negative.split():
        _require(getattr(settings, name) >= 0, f"{where}.{name} must not be negative, not {getattr(settings, name)}")


@dataclass(frozen=True)
class MelConfig:
    """How sound becomes a log-mel spectrogram (log of a slaney mel magnitude spectrogram, reflect-padded, centred).

    The defaults are those of the public 16 kHz HiFi-GAN vocoders, so their mels and ours agree.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float = 8000.0
    floor: float = 1e-5
    clip_samples: int = 16000
    frames: int = 64

    def __post_init__(self) -> None:
        _check("mel", self, positive="sample_rate n_fft win_length hop_length n_mels floor clip_samples frames")
        _require(self.win_length <= self.n_fft, f"mel.win_length {self.win_length} is longer than n_fft {self.n_fft}")
        _require(0 <= self.fmin < self.fmax, f"mel.fmin {self.fmin} must lie below fmax {self.fmax}")
        _require(self.fmax <= self.sample_rate / 2, f"mel.fmax {self.fmax} lies above half the sample rate {self.sample_rate}")
        _require(self.padded_samples >= self.clip_samples, f"mel.frames {self.frames} do not cover {self.clip_samples} samples")
        _require(self.padded_samples > self.n_fft // 2, f"mel.n_fft {self.n_fft} is too long for clips of {self.padded_samples} samples")

    @property
    def padded_samples(self) -> int:
        """Length in samples a clip is zero-padded to, so that centred framing gives exactly `frames` frames."""
        return (self.frames - 1) * self.hop_length


@dataclass(frozen=True)
class MelScale:
    """The affine map between log-mel and the mel the diffusion sees: mel = (log_mel - shift) / scale.

    `kind` says how it was fitted on the train split: `range` maps [min, max] to [-1, 1] (the paper);
    `standard` maps to mean 0 and standard deviation 0.5.
    """

    kind: Literal["range", "standard"] = "standard"
    shift: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check("mel_scale", self, positive="scale")


@dataclass(frozen=True)
class NoiseConfig:
    """Noise levels: which SDE, what the network is fed, which sigmas it is trained on.

    `vp` is the paper's variance-preserving SDE with a linear beta; `edm` is Karras et al. 2022 (arXiv 2206.00364).
    """

    kind: Literal["vp", "edm"] = "edm"
    sigma_data: float = 0.5
    sigma_min: float = 0.01
    sigma_max: float = 80.0
    rho: float = 7.0
    log_sigma_mean: float = -1.2
    log_sigma_std: float = 1.4
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _check("noise", self, positive="sigma_data sigma_min rho log_sigma_std", not_negative="beta_min")
        _require(self.sigma_min < self.sigma_max, f"noise.sigma_min {self.sigma_min} must lie below sigma_max {self.sigma_max}")
        _require(self.beta_min < self.beta_max, f"noise.beta_min {self.beta_min} must lie below beta_max {self.beta_max}")


@dataclass(frozen=True)
class EncoderConfig:
    """The noise-conditioned classifier: a U-Net's encoder without the way up (target: paper section 3).

    `patch` folds patch x patch squares of the mel into channels before the first convolution (1 is the paper's form).
    """

    patch: int = 2
    widths: tuple[int, ...] = (64, 96, 128, 160)
    blocks: int = 2
    bottleneck_blocks: int = 2
    embedding: int = 256
    group_size: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check("classifier", self, positive="patch widths blocks bottleneck_blocks embedding group_size")
        _require(len(self.widths) >= 1, "classifier.widths must not be empty")
        _require(0 <= self.dropout < 1, f"classifier.dropout must lie in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class MelInput:
    """The log-mel spectrogram that a classifier of someone else's takes: (log(max(mel, floor)) - shift) / scale.

    Centred framing (frame t around sample t * hop_length), Hann window, triangular filters. `power` 1 is the magnitude, 2 the
    power spectrum; `log` "db" is 10 log10. `normalise` comes before shift and scale: `item` is mean 0 and standard deviation 1
    per clip, `whisper` is (max(x, max(x) - 8) + 4) / 4. The defaults are our own mel, unscaled.
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
    log: Literal["ln", "log10", "db"] = "ln"
    floor: float = 1e-5
    normalise: Literal["none", "item", "whisper"] = "none"
    shift: float = 0.0
    scale: float = 1.0
    layout: Literal["B1MT", "BMT", "B1TM", "BTM"] = "B1MT"

    def __post_init__(self) -> None:
        _check("mel_input", self, positive="sample_rate n_fft win_length hop_length n_mels frames floor scale")
        _require(self.power in (1, 2), f"mel_input.power must be 1 (magnitude) or 2 (power), not {self.power}")
        _require(self.win_length <= self.n_fft, f"mel_input.win_length {self.win_length} is longer than n_fft {self.n_fft}")
        _require(0 <= self.fmin < self.fmax, f"mel_input.fmin {self.fmin} must lie below fmax {self.fmax}")
        _require(self.fmax <= self.sample_rate / 2, f"mel_input.fmax {self.fmax} lies above half the sample rate {self.sample_rate}")


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
        _check("wave_input", self, positive="sample_rate samples")


@dataclass(frozen=True)
class TapConfig:
    """One tap of a classifier of someone else's: the layer's name, and which axis of its output is what.

    `axes` has one letter an axis: B batch, C channels, M mel rows, T time. E.g. BCMT, BTC, BCT, BTMC.
    """

    name: str
    axes: str

    def __post_init__(self) -> None:
        letters = sorted(self.axes)
        _require(
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
    taps: tuple[TapConfig, ...] = ()
    patch: int = 2
    conditioned: bool = False

    def __post_init__(self) -> None:
        _check("external", self, positive="patch")
        _require(
            (self.mel_input is None) != (self.wave_input is None),
            "external: say what the classifier takes, either mel_input or wave_input",
        )
        try:
            _require(isinstance(json.loads(self.arguments), dict), "external.arguments must be a JSON object")
        except ValueError as error:
            raise ConfigError(f"external.arguments is no JSON: {error}") from None
        _require(
            len(self.labels) > 0 and len(set(self.labels)) == len(self.labels),
            f"external.labels must be different names, at least one, not {list(self.labels)}",
        )
        names = [tap.name for tap in self.taps]
        _require(len(set(names)) == len(names), f"external.taps: each layer once, not {names}")


@dataclass(frozen=True)
class SubnetConfig:
    """The Score Subnet: fusion of the taps and the decoder.

    `gradient_taps` says which scalar's gradient is tapped: `none`; `logsumexp` (the paper's, reading the classifier as
    a joint energy model); `label` (the wanted label's logit for `label_share` of the batch, logsumexp for the rest).
    """

    widths: tuple[int, ...] = (64, 96, 128, 160)
    blocks: int = 1
    embedding: int = 256
    group_size: int = 16
    fusion: Literal["attention", "concat"] = "attention"
    heads: int = 4
    gradient_taps: Literal["none", "logsumexp", "label"] = "logsumexp"
    label_share: float = 0.85
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check("subnet", self, positive="widths blocks embedding group_size heads")
        _require(all(w % self.heads == 0 for w in self.widths), f"subnet.widths {self.widths} must be divisible by heads {self.heads}")
        _require(0 <= self.label_share <= 1, f"subnet.label_share must lie in [0, 1], not {self.label_share}")
        _require(0 <= self.dropout < 1, f"subnet.dropout must lie in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class UNetConfig:
    """The baseline score model: a way down like the classifier's (`EncoderConfig`) and a way up of widths `up_widths`."""

    patch: int = 2
    widths: tuple[int, ...] = (64, 96, 128, 160)
    up_widths: tuple[int, ...] = (64, 96, 128, 160)
    blocks: int = 2
    bottleneck_blocks: int = 2
    embedding: int = 256
    group_size: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check("unet", self, positive="patch widths up_widths blocks bottleneck_blocks embedding group_size")
        _require(
            0 < len(self.widths) == len(self.up_widths),
            f"unet.widths {self.widths} and up_widths {self.up_widths} must have as many entries, at least one",
        )
        _require(0 <= self.dropout < 1, f"unet.dropout must lie in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class VocoderConfig:
    """The neural vocoder: ConvNeXt blocks at the frame rate and an inverse-STFT head (Vocos, arXiv 2306.00814) on a voice source.

    `refinements` counts the rounds that bring the sound closer to its mel. In training the first `pitch_updates` teach the
    pitch alone, and from update `adversarial_after` on the discriminators take part; crops are `crop_frames` long.
    """

    width: int = 256
    hidden: int = 768
    blocks: int = 6
    kernel: int = 7
    pitch_width: int = 128
    refinements: int = 3
    discriminator_width: int = 32
    crop_frames: int = 32
    mel_weight: float = 15.0
    stft_weight: float = 3.0
    pitch_updates: int = 300
    adversarial_after: int = 400

    def __post_init__(self) -> None:
        sizes = "width hidden blocks kernel pitch_width discriminator_width crop_frames"
        _check("vocoder", self, positive=sizes, not_negative="refinements mel_weight stft_weight pitch_updates adversarial_after")
        _require(self.kernel % 2 == 1, f"vocoder.kernel must be odd, not {self.kernel}")


@dataclass(frozen=True)
class TrainConfig:
    """How one network is trained. `updates` counts optimiser steps; the last `cooldown` share of them decays the rate to 0.

    No updates at all leave the network as it was drawn (a classifier like that is a baseline of its own).
    """

    updates: int = 3000
    batch: int = 64
    rate: float = 2e-3
    warmup: int = 100
    cooldown: float = 0.3
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    shift_frames: int = 0
    label_smoothing: float = 0.0
    validate_every: int = 500
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        positive = "batch rate clip_norm validate_every checkpoint_every"
        _check("train", self, positive=positive, not_negative="updates warmup weight_decay shift_frames seed")
        _require(0 <= self.cooldown <= 1, f"train.cooldown must lie in [0, 1], not {self.cooldown}")
        _require(0 <= self.ema_decay < 1, f"train.ema_decay must lie in [0, 1), not {self.ema_decay}")
        _require(0 <= self.label_smoothing < 1, f"train.label_smoothing must lie in [0, 1), not {self.label_smoothing}")


@dataclass(frozen=True)
class SeenConfig:
    """Which of the train clips a score model sees: a share of them (the same at every start), of these labels (none named: all).

    `other_data` lets it see other recordings than its classifier was trained on: they are scaled as the classifier's were, and words
    that it does not know have no label.
    """

    share: float = 1.0
    labels: tuple[str, ...] = ()
    other_data: bool = False

    def __post_init__(self) -> None:
        _require(0 < self.share <= 1, f"subnet_sees.share must lie in (0, 1], not {self.share}")


@dataclass(frozen=True)
class Calibration:
    """Temperatures by which a classifier's logits are divided, at noise levels `sigmas` (rising); between them log-linear.

    They were fitted for logits taken where `guide_at` says, and are used for those alone.
    """

    guide_at: Literal["noised", "estimate"] = "noised"
    sigmas: tuple[float, ...] = ()
    temperatures: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check("calibration", self, positive="sigmas temperatures")
        _require(len(self.sigmas) == len(self.temperatures), "calibration: sigmas and temperatures must be as many")
        _require(list(self.sigmas) == sorted(set(self.sigmas)), f"calibration.sigmas must rise, not {self.sigmas}")


@dataclass(frozen=True)
class SampleConfig:
    """Default settings of generation, stored in the bundle and used by the library, the command line and every server.

    `schedule` is how the strength of guidance runs over the noise levels: `early` is gamma times the noise's share of the noised
    mel's variance (strong at first, gone at the end), `late` gamma times the mel's share.

    `guide_at` says where the classifier is asked for the label: at the `noised` mel (a classifier that knows noise), or at the
    `estimate` of the clean mel, the gradient taken through the denoiser (one that does not).
    """

    sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] = "heun"
    steps: int = 14
    gamma: float = 3.0
    guidance_low: float = 0.0
    guidance_high: float = float("inf")
    schedule: Literal["constant", "early", "late"] = "constant"
    guide_at: Literal["noised", "estimate"] = "noised"

    def __post_init__(self) -> None:
        _check("sample", self, positive="steps", not_negative="gamma guidance_low", may_be_infinite="guidance_high")
        low, high = self.guidance_low, self.guidance_high
        _require(low < high, f"sample.guidance_low {low} must lie below guidance_high {high}")

    def changed(self, given: Mapping[str, Any]) -> SampleConfig:
        """The same with those of the `given` values that are not None. Raises `ConfigError`."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a model: features, noise, networks, trainings and default sampling.

    Where `external` is given, the classifier is someone else's, and `classifier` says nothing. With `score_model` "unet" the
    baseline `unet` takes the place of the Score Subnet (and is trained as the part `subnet`), and the classifier only guides.
    """

    name: str
    about: str = ""
    mel: MelConfig = field(default_factory=MelConfig)
    mel_scale: Literal["range", "standard"] = "standard"
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    classifier: EncoderConfig = field(default_factory=EncoderConfig)
    external: ExternalConfig | None = None
    score_model: Literal["subnet", "unet"] = "subnet"
    unet: UNetConfig = field(default_factory=UNetConfig)
    subnet: SubnetConfig = field(default_factory=SubnetConfig)
    subnet_sees: SeenConfig = field(default_factory=SeenConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    judge: Literal["compact", "resnext29"] = "compact"
    train_classifier: TrainConfig = field(default_factory=TrainConfig)
    train_subnet: TrainConfig = field(default_factory=TrainConfig)
    train_vocoder: TrainConfig = field(
        default_factory=lambda: TrainConfig(updates=5000, batch=8, rate=5e-4, warmup=50, cooldown=0.4, ema_decay=0.998)
    )
    train_judge: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        _check("recipe", self)
        _require(
            self.external is not None or len(self.subnet.widths) == len(self.classifier.widths),
            "recipe: subnet.widths and classifier.widths must have one entry per stage each",
        )
        self._check_stride("decoder", (self.external or self.classifier).patch, len(self.subnet.widths))
        if self.score_model == "unet":
            self._check_stride("U-Net", self.unet.patch, len(self.unet.widths))

    def _check_stride(self, what: str, patch: int, stages: int) -> None:
        stride = patch * 2 ** (stages - 1)
        _require(
            self.mel.n_mels % stride == 0 and self.mel.frames % stride == 0,
            f"recipe: mel of {self.mel.n_mels} x {self.mel.frames} is not divisible by the {what}'s total stride {stride}",
        )


def to_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain dictionaries, lists and scalars (infinity as "inf": JSON has none; no None: TOML has none)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if item is not None}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return "inf" if value == float("inf") else value

    result = plain(asdict(settings))
    assert isinstance(result, dict)
    return result


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build the settings dataclass `cls` from plain dictionaries; unknown names and wrong types raise `ConfigError`."""
    _require(isinstance(data, Mapping), f"{where or cls.__name__}: expected a table of settings, got {data!r}")
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
            raise ConfigError(f"{where or cls.__name__}: unknown setting {name!r}{hint}")
    hints = get_type_hints(cls)
    values = {name: _convert(hints[name], value, f"{where}.{name}" if where else name) for name, value in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where or cls.__name__}: {error}") from None
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Turn one plain value into the type a field is annotated with, or say what was expected."""
    if is_dataclass(kind):
        return from_dict(kind, value, where)  # type: ignore[arg-type]
    origin = get_origin(kind)
    if origin is Literal:
        _require(value in get_args(kind), f"{where}: {value!r} is none of {', '.join(map(repr, get_args(kind)))}")
        return value
    if origin is tuple:
        _require(isinstance(value, list | tuple), f"{where}: expected a list, got {value!r}")
        return tuple(_convert(get_args(kind)[0], item, where) for item in value)
    if origin in (UnionType, Union):
        choices = [c for c in get_args(kind) if c is not type(None)]
        return None if value is None else _convert(choices[0], value, where)
    if origin is not None or kind is Any:
        return value
    if kind is float and value == "inf":
        return float("inf")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    _require(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def read_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by the name of one that ships with duovox (`compact`, `paper`, ...) or by the path of a TOML file."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        folder = Path(__file__).parent / "recipes"
        path = folder / f"{name_or_path}.toml"
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
            raise ConfigError(f"no recipe named {str(name_or_path)!r}; shipped recipes: {names}; or give the path of a .toml file")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not valid TOML: {error}") from None
    return from_dict(Recipe, {"name": path.stem, **data})


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
        data = tomllib.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {text}: {error}") from None
    if set(data) == {"mel_input"}:
        return from_dict(MelInput, data["mel_input"], "mel_input")
    _require(set(data) == {"wave_input"}, f"{text} must hold one table, [mel_input] or [wave_input], and nothing else")
    return from_dict(WaveInput, data["wave_input"], "wave_input")


def write_recipe(recipe: Recipe) -> str:
    """A recipe as TOML text, which `read_recipe` reads back to an equal recipe."""
    return tomli_w.dumps(to_dict(recipe))


def to_json(settings: Any) -> str:
    """A settings dataclass as JSON, keys in the order of their definition."""
    return json.dumps(to_dict(settings), indent=2)
