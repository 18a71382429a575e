"""The bundle: one folder that holds everything a speaking classifier needs, and refuses everything that is not one.

Takes finished runs from `training`; gives a checked `Bundle` to `duovox`. Files: `config.json`, `model.safetensors`
(classifier and subnet), `vocoder.safetensors` (if there is a neural vocoder), `README.md` (the model card). No pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from duovox.config import MelScale, Recipe, from_dict, to_dict
from duovox.contracts import BundleError, ConfigError, OutputError
from duovox.model import GenerativeClassifier, build_classifier, build_model
from duovox.vocoder.istft_net import ISTFTNet

FORMAT = 1
FILES = ("config.json", "model.safetensors", "vocoder.safetensors", "README.md")


@dataclass(frozen=True)
class BundleConfig:
    """What `config.json` holds: the recipe and mel scale in full, labels, origin of the weights, scores, file digests."""

    format: int
    labels: tuple[str, ...]
    recipe: Recipe
    mel_scale: MelScale
    revision: str = "unknown"
    origin: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """One identity for the weights as a whole: SHA-256 over the files' digests."""
        return hashlib.sha256(json.dumps(self.digests, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory: its settings and its networks (float32, eval mode, on the CPU)."""

    config: BundleConfig
    model: GenerativeClassifier
    vocoder: ISTFTNet | None
    card: str = ""


def read_bundle(folder: str | Path) -> Bundle:
    """Read and check a bundle folder: version, digests, names and shapes of tensors, that the vocoder fits the mel.

    Raises `BundleError` with the file that is wrong.
    """
    folder = Path(folder)
    config = _read_config(folder)
    classifier = build_classifier(config.recipe, len(config.labels))
    model = build_model(config.recipe, classifier)
    tensors = _read_tensors(folder, "model.safetensors", config)
    parts: dict[str, nn.Module] = {"classifier": model.classifier.network, "subnet": model.subnet}
    _fill(parts, tensors, folder / "model.safetensors")
    model.classifier.freeze()
    vocoder = None
    if "vocoder.safetensors" in config.digests:
        vocoder = ISTFTNet(config.recipe.vocoder, config.recipe.mel)
        _fill({"vocoder": vocoder}, _read_tensors(folder, "vocoder.safetensors", config), folder / "vocoder.safetensors")
        vocoder.eval().requires_grad_(False)
    card = folder / "README.md"
    return Bundle(config, model.eval().requires_grad_(False), vocoder, card.read_text(encoding="utf-8") if card.is_file() else "")


def _read_config(folder: Path) -> BundleConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise BundleError(f"{folder} is no duovox bundle: it has no config.json")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data.get("format") if isinstance(data, dict) else None
        if version != FORMAT:
            raise BundleError(f"{path} has bundle format {version!r}, this duovox reads format {FORMAT}; use a matching version of duovox")
        return from_dict(BundleConfig, data)
    except (OSError, ValueError, ConfigError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None


def _read_tensors(folder: Path, name: str, config: BundleConfig) -> dict[str, Tensor]:
    path = folder / name
    if not path.is_file():
        raise BundleError(f"{folder} is incomplete: {name} is missing")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != config.digests.get(name):
        raise BundleError(
            f"{path} is not the file config.json names (sha256 {digest[:12]}..., expected {config.digests.get(name, 'none')[:12]}...)"
        )
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None


def _fill(parts: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors named `<part>.<name>` into the parts, each exactly once; anything missing, extra or misshapen is an error."""
    wanted = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or extra:
        kind, names = ("lacks", missing) if missing else ("has an unknown", extra)
        raise BundleError(
            f"{path} {kind} tensor {names[0]!r} ({len(missing)} missing, {len(extra)} extra): its recipe is not the one in config.json"
        )
    for name, value in wanted.items():
        if value.shape != tensors[name].shape:
            raise BundleError(f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}, its recipe needs {tuple(value.shape)}")
        if not tensors[name].isfinite().all():
            raise BundleError(f"{path}: tensor {name!r} holds values that are not finite")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(tensors[name])


def write_bundle(bundle: Bundle, folder: str | Path, force: bool = False) -> BundleConfig:
    """Write a bundle beside its place and rename it, whole or not at all; returns its config with digests.

    Weights are stored as float16. Raises `OutputError` where the folder exists (`force` replaces a bundle, nothing else).
    """
    folder = Path(folder)
    _check_place(folder, force)
    files = {"model.safetensors": _tensor_bytes({"classifier": bundle.model.classifier.network, "subnet": bundle.model.subnet})}
    if bundle.vocoder is not None:
        files["vocoder.safetensors"] = _tensor_bytes({"vocoder": bundle.vocoder})
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    settings = to_dict(bundle.config) | {"format": FORMAT, "digests": digests}
    files["config.json"] = (json.dumps(settings, indent=2) + "\n").encode()
    files["README.md"] = bundle.card.encode()
    _write_folder(folder, files)
    return from_dict(BundleConfig, settings)


def _check_place(folder: Path, force: bool) -> None:
    if not folder.exists():
        return
    is_bundle = folder.is_dir() and all(entry.name in FILES for entry in folder.iterdir())
    if not is_bundle:
        raise OutputError(f"{folder} exists and is no bundle; choose another place")
    if not force and any(folder.iterdir()):
        raise OutputError(f"{folder} exists; use --force to replace it")


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        temporary.chmod(0o755)
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except OSError as error:
        raise OutputError(f"cannot write the bundle {folder}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _tensor_bytes(parts: Mapping[str, nn.Module]) -> bytes:
    tensors = {
        f"{part}.{name}": value.detach().cpu().half().contiguous()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    return save(tensors, {"format": "pt"})


def git_revision() -> str:
    """The revision of the source tree duovox runs from, with `+` if it has uncommitted changes, or `unknown`."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
