"""What a bundle is: its settings and its networks in memory, and the files that hold them.

`config.json`, `model.safetensors` (classifier and subnet), `student.safetensors` and `vocoder.safetensors` (if there are such),
`README.md` (the model card). No pickle. Where the classifier is someone else's and comes as a program, its file lies beside them; opening
that runs it, so it asks for trust.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from duovox.config import Calibration, MelScale, Recipe, Schooling, check_labels, check_languages
from duovox.contracts import ConfigError
from duovox.model import ScoreModel
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.student import Student

FORMAT = 2
READABLE_FORMATS = (1, 2)
CODE_FILES = {"export": "network.pt2", "torchscript": "network.torchscript"}
"""The file that holds the program of someone else's classifier, by `ExternalConfig.source`."""
FILES = ("config.json", "model.safetensors", "student.safetensors", "vocoder.safetensors", "README.md", *CODE_FILES.values())


@dataclass(frozen=True)
class BundleConfig:
    """What `config.json` holds: the recipe and mel scale in full, labels, origin of the weights, scores, file digests; and the language
    (a code such as `de`) of each label that has one; `schooling` says what the student was taught, if there is one."""

    format: int
    labels: tuple[str, ...]
    recipe: Recipe
    mel_scale: MelScale
    revision: str = "unknown"
    origin: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    languages: dict[str, str] = field(default_factory=dict)
    schooling: Schooling | None = None

    def __post_init__(self) -> None:
        check_labels("labels", self.labels)
        check_languages("languages", self.languages, self.labels)
        for name in ("origin", "scores", "digests"):
            if not isinstance(getattr(self, name), dict):
                raise ConfigError(f"{name}: expected a table, got {getattr(self, name)!r}")

    @property
    def digest(self) -> str:
        """One identity for the weights as a whole: SHA-256 over the files' digests."""
        return hashlib.sha256(json.dumps(self.digests, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory: its settings and its networks (float32, eval mode). Raises `BundleError` for a vocoder of another mel."""

    config: BundleConfig
    model: ScoreModel
    vocoder: ISTFTNet | None
    card: str = ""
    student: Student | None = None

    def __post_init__(self) -> None:
        if self.vocoder is not None:
            self.vocoder.check(self.config.recipe.mel)
