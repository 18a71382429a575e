"""The folder of an exported voice: what its `manifest.json` says, and that its files are those it names. No torch.

Written by `exporting`, read by `lite` and by the page without a server.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Literal

from duovox.config import MelConfig, MelScale, NoiseConfig, Repertoire, SampleConfig, check_labels, check_languages, from_dict
from duovox.config.fields import require
from duovox.contracts import BundleError, ConfigError

FORMAT = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"
GRAPHS = ("classifier", "step", "student", "vocoder")
INPUTS = {
    "classifier": ("mel", "wave"),
    "step": ("noised", "sigma", "label", "gamma"),
    "student": ("noised", "sigma", "to", "label", "gamma"),
    "vocoder": ("log_mel", "noise"),
}
"""What a graph may take; which of them it takes, and in which order, its manifest says."""

PrecisionName = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class GraphFacts:
    """One ONNX graph: its file, the names of its inputs and outputs in their order, and how far its output is at most, and on average,
    from PyTorch's on fresh inputs."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_error: float = 0.0
    mean_error: float = 0.0


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an exported voice is. `step` denoises, guided by gradients; `student` jumps from a noise level `to` a lower one, as its
    `repertoire` says; a voice has one of them or both. Label -1 is none. `classifier` takes a scaled `mel`, or a `wave` where it has a
    front end of its own.

    `bundle` is the digest of the bundle it was made of, `onnxruntime` the oldest that can run it, `measured` what the precision costs.
    """

    format: int
    duovox: str
    bundle: str
    labels: tuple[str, ...]
    mel: MelConfig
    mel_scale: MelScale
    noise: NoiseConfig
    sample: SampleConfig
    classifier: GraphFacts
    vocoder: GraphFacts
    opset: int
    onnxruntime: str
    precision: PrecisionName
    files: dict[str, Any]
    languages: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    step: GraphFacts | None = None
    student: GraphFacts | None = None
    repertoire: Repertoire | None = None

    def __post_init__(self) -> None:
        check_labels("labels", self.labels)
        check_languages("languages", self.languages, self.labels)
        require(isinstance(self.files, dict), f"files: expected a table of names, got {self.files!r}")
        for name, said in self.files.items():
            require(PurePath(name).name == name, f"files: {name!r} is no name of a file in the folder")
            require(isinstance(said, dict), f"files.{name}: expected size and sha256, got {said!r}")
            from_dict(FileFacts, said, f"files.{name}")
        require(self.step is not None or self.student is not None, "a voice needs a step, a student, or both")
        require((self.student is None) == (self.repertoire is None), "student and repertoire go together")
        known = [set(facts.inputs) <= set(INPUTS[graph]) for graph, facts in self.graphs.items()]
        require(all(known), "a graph takes inputs that this duovox does not know; use the one that exported it, or a newer")
        for name in (*(facts.file for facts in self.graphs.values()), WEIGHTS):
            require(name in self.files, f"files: {name} is not among them")

    @property
    def graphs(self) -> dict[str, GraphFacts]:
        """The graphs that there are, by their names."""
        return {name: facts for name in GRAPHS if (facts := getattr(self, name)) is not None}


def facts_of(content: bytes | BinaryIO) -> FileFacts:
    """Size and digest of a file's content, or of an open file, which is never in memory as a whole."""
    if isinstance(content, bytes):
        return FileFacts(len(content), hashlib.sha256(content).hexdigest())
    digest = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    return FileFacts(content.tell(), digest)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an exported voice. Raises `BundleError` for a folder that is none, or of another format."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} is no exported voice: it has no {MANIFEST}; make one with `duovox export`")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data.get("format") if isinstance(data, dict) else None
        if version != FORMAT or isinstance(version, bool):
            raise BundleError(f"{path} has format {version!r}, this duovox reads format {FORMAT}; export the bundle again")
        return from_dict(Manifest, data)
    except (OSError, ValueError, ConfigError) as error:
        raise BundleError(f"{path} cannot be read: {error}; export the bundle again") from None


def check_files(folder: Path, files: Mapping[str, Any]) -> None:
    """Raise `BundleError` for the first file of an exported voice that is missing or is not the one its manifest names."""
    for name, said in files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder} is incomplete: {name} is missing; export the bundle again")
        try:
            with path.open("rb") as file:
                found = facts_of(file)
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None
        if found != FileFacts(**said):
            raise BundleError(
                f"{path} is not the file {MANIFEST} names ({found.size} bytes, sha256 {found.sha256[:12]}...); export the bundle again"
            )
