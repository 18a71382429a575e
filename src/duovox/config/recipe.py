"""The recipe: everything that decides a model, as one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from duovox.config.diffusion import NoiseConfig, SampleConfig
from duovox.config.external import ExternalConfig
from duovox.config.fields import check, from_dict, require, to_dict
from duovox.config.networks import EncoderConfig, SpeakerConfig, SubnetConfig, UNetConfig
from duovox.config.sound import MelConfig, VocoderConfig
from duovox.config.student import StudentConfig
from duovox.config.training import SeenConfig, TrainConfig
from duovox.contracts import ConfigError
from duovox.text import read_text


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a model: features, noise, networks, trainings and default sampling.

    Where `external` is given, the classifier is someone else's, and `classifier` says nothing. With `score_model` "unet" the
    baseline `unet` takes the place of the Score Subnet (and is trained as the part `subnet`), and the classifier only guides. `speaker`
    describes a network that embeds speakers, whose encoders are like `classifier`.
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
    student: StudentConfig = field(default_factory=StudentConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    judge: Literal["compact", "resnext29"] = "compact"
    speaker: SpeakerConfig = field(default_factory=SpeakerConfig)
    train_classifier: TrainConfig = field(default_factory=TrainConfig)
    train_subnet: TrainConfig = field(default_factory=TrainConfig)
    train_student: TrainConfig = field(
        default_factory=lambda: TrainConfig(updates=6000, batch=64, rate=1e-3, cooldown=0.5, ema_decay=0.998, validate_every=1000)
    )
    train_vocoder: TrainConfig = field(
        default_factory=lambda: TrainConfig(updates=5000, batch=8, rate=5e-4, warmup=50, cooldown=0.4, ema_decay=0.998)
    )
    train_judge: TrainConfig = field(default_factory=TrainConfig)
    train_speaker: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check("recipe", self)
        require(
            self.external is not None or len(self.subnet.widths) == len(self.classifier.widths),
            "recipe: subnet.widths and classifier.widths must have one entry per stage each",
        )
        self._check_stride("decoder", (self.external or self.classifier).patch, len(self.subnet.widths))
        if self.score_model == "unet":
            self._check_stride("U-Net", self.unet.patch, len(self.unet.widths))

    def _check_stride(self, what: str, patch: int, stages: int) -> None:
        stride = patch * 2 ** (stages - 1)
        require(
            self.mel.n_mels % stride == 0 and self.mel.frames % stride == 0,
            f"recipe: mel of {self.mel.n_mels} x {self.mel.frames} is not divisible by the {what}'s total stride {stride}",
        )


def read_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by the name of one that ships with duovox (`compact`, `paper`, ...) or by the path of a TOML file."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        folder = Path(__file__).parents[1] / "recipes"
        path = folder / f"{name_or_path}.toml"
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
            raise ConfigError(f"no recipe named {str(name_or_path)!r}; shipped recipes: {names}; or give the path of a .toml file")
    try:
        data = tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not valid TOML: {error}") from None
    return from_dict(Recipe, {"name": path.stem, **data})


def write_recipe(recipe: Recipe) -> str:
    """A recipe as TOML text, which `read_recipe` reads back to an equal recipe."""
    import tomli_w  # where it is used: a voice without PyTorch has settings, but writes no recipes

    return tomli_w.dumps(to_dict(recipe))
