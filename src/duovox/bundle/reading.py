"""Reading a bundle: takes a folder, gives a checked `Bundle`, and refuses everything that is not one, naming the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from duovox.bundle.contents import CODE_FILES, FORMAT, READABLE_FORMATS, Bundle, BundleConfig
from duovox.bundle.rounding import restored
from duovox.classifiers.copies import copy_network
from duovox.classifiers.loading import rebuild_network
from duovox.config import MelConfig, Schooling, from_dict
from duovox.contracts import BundleError, ConfigError, DuovoxError
from duovox.model import ScoreModel, build_classifier, build_external, build_model
from duovox.networks.base import TappedClassifier
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.student import Student, build_student
from duovox.text import read_text


def read_bundle(folder: str | Path, *, network: nn.Module | None = None, trust_code: bool = False) -> Bundle:
    """Read and check a bundle folder: version, digests, names and shapes of tensors, that the vocoder fits the mel.

    A bundle of someone else's classifier may name code that has to run to rebuild it (see `loading.needs`): that is done only
    with `trust_code`. `network` gives the module itself, of which a copy is used; its weights are the bundle's.
    Raises `BundleError` with the file that is wrong.
    """
    folder = Path(folder)
    config = _read_config(folder)
    model = _empty_model(folder, config, network, trust_code)
    tensors, _ = _read_tensors(folder, "model.safetensors", config)
    parts: dict[str, nn.Module] = {"classifier": model.classifier.network, "subnet": model.score_network}
    _fill(parts, tensors, folder / "model.safetensors", "classifier" if config.recipe.external else "")
    model.classifier.freeze()
    vocoder = None
    if "vocoder.safetensors" in config.digests:
        vocoder = _read_vocoder(folder, config)
    student = None if config.schooling is None else _read_student(folder, config, config.schooling, model.classifier.network)
    return Bundle(config, model.eval().requires_grad_(False), vocoder, _read_card(folder), student)


def _empty_model(folder: Path, config: BundleConfig, network: nn.Module | None, trust_code: bool) -> ScoreModel:
    """The bundle's model before its weights are filled in."""
    external = config.recipe.external
    if external is None:
        return build_model(config.recipe, build_classifier(config.recipe, len(config.labels)))
    file = CODE_FILES.get(external.source)
    code = _read_checked(folder, file, config) if file else None
    rebuilt = rebuild_network(external, None, code, trust_code) if network is None else network
    try:
        rebuilt = rebuilt if network is None else copy_network(network)
        classifier = build_external(config.recipe, rebuilt.eval(), config.mel_scale)
        classifier.code = code.read_bytes() if code else None
        return build_model(config.recipe, classifier)
    except DuovoxError:
        raise
    except Exception as error:  # the network may be any
        first = next(iter(str(error).splitlines()), "")
        raise BundleError(f"the classifier is not the one of the bundle {folder} ({type(error).__name__}: {first})") from error


def _read_config(folder: Path) -> BundleConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise BundleError(f"{folder} is no duovox bundle: it has no config.json")
    try:
        data = json.loads(read_text(path))
        version = data.get("format") if isinstance(data, dict) else None
        if not (isinstance(version, int) and version in READABLE_FORMATS) or isinstance(version, bool):
            raise BundleError(f"{path} has bundle format {version!r}, duovox reads formats up to {FORMAT}; use a matching version")
        return from_dict(BundleConfig, data)
    except (OSError, ValueError, ConfigError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None


def _read_vocoder(folder: Path, config: BundleConfig) -> ISTFTNet:
    """The vocoder, for the mel that its own file says; that this is the bundle's mel is for `Bundle` to check."""
    tensors, metadata = _read_tensors(folder, "vocoder.safetensors", config)
    path = folder / "vocoder.safetensors"
    try:
        mel = from_dict(MelConfig, json.loads(metadata.get("mel", "{}")))
    except (ValueError, ConfigError) as error:
        raise BundleError(f"{path} does not say which mel it was made for: {error}") from None
    vocoder = ISTFTNet(config.recipe.vocoder, mel)
    _fill({"vocoder": vocoder}, tensors, path)
    return vocoder.eval().requires_grad_(False)


def _read_student(folder: Path, config: BundleConfig, schooling: Schooling, classifier: TappedClassifier) -> Student:
    """The student, which shares the model's classifier."""
    try:
        student = build_student(config.recipe, classifier, len(config.labels), schooling)
    except ConfigError as error:
        raise BundleError(f"{folder / 'config.json'} cannot be read: {error}") from None
    tensors, _ = _read_tensors(folder, "student.safetensors", config)
    _fill({"student": student.network}, restored(tensors), folder / "student.safetensors")
    student.model.classifier.freeze()
    return student.eval().requires_grad_(False)


def _read_card(folder: Path) -> str:
    path = folder / "README.md"
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None


def _read_checked(folder: Path, name: str, config: BundleConfig) -> Path:
    """The path of one file, whose digest must be the one in config.json."""
    path = folder / name
    if not path.is_file():
        raise BundleError(f"{folder} is incomplete: {name} is missing")
    try:
        digest, expected = hashlib.sha256(path.read_bytes()).hexdigest(), str(config.digests.get(name, "none"))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}") from None
    if digest != expected:
        raise BundleError(f"{path} is not the file config.json names (sha256 {digest[:12]}..., expected {expected[:12]}...)")
    return path


def _read_tensors(folder: Path, name: str, config: BundleConfig) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of one file, whose digest must be the one in config.json."""
    path = _read_checked(folder, name, config)
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 (safe_open is no mapping)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None


def _fill(parts: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], path: Path, exact: str = "") -> None:
    """Load tensors named `<part>.<name>` into the parts, each exactly once; anything missing, extra or misshapen is an error, and so
    is what is not finite, but for the part `exact`."""
    wanted = {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or extra:
        kind, names = ("lacks", missing) if missing else ("has an unknown", extra)
        raise BundleError(
            f"{path} {kind} tensor {names[0]!r} ({len(missing)} missing, {len(extra)} extra): its recipe is not the one in config.json"
        )
    for name, value in wanted.items():
        if tensors[name].is_floating_point() != value.is_floating_point():
            raise BundleError(f"{path}: tensor {name!r} holds {tensors[name].dtype}, its recipe needs {value.dtype}")
        if value.shape != tensors[name].shape:
            raise BundleError(f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}, its recipe needs {tuple(value.shape)}")
        if not (tensors[name].isfinite().all() or (exact and name.startswith(f"{exact}."))):  # a mask may be infinite
            raise BundleError(f"{path}: tensor {name!r} holds values that are not finite")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(tensors[name])
