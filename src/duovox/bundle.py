"""The bundle: one folder that holds everything a speaking classifier needs, and refuses everything that is not one.

Takes finished runs from `training`; gives a checked `Bundle` to `duovox`. Files: `config.json`, `model.safetensors`
(classifier and subnet), `vocoder.safetensors` (if there is a neural vocoder), `README.md` (the model card). No pickle. Where the
classifier is someone else's and comes as a program, its file lies beside them; opening that runs it, so it asks for trust.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from duovox.classifiers.copies import copy_network
from duovox.classifiers.loading import rebuild_network
from duovox.config import Calibration, MelConfig, MelScale, Recipe, check_labels, check_languages, from_dict, to_dict, to_json
from duovox.contracts import BundleError, ConfigError, DuovoxError, OutputError
from duovox.files import write_folder
from duovox.model import ScoreModel, build_classifier, build_external, build_model
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.text import read_text

FORMAT = 2
READABLE_FORMATS = (1, 2)
CODE_FILES = {"export": "network.pt2", "torchscript": "network.torchscript"}
"""The file that holds the program of someone else's classifier, by `ExternalConfig.source`."""
FILES = ("config.json", "model.safetensors", "vocoder.safetensors", "README.md", *CODE_FILES.values())


@dataclass(frozen=True)
class BundleConfig:
    """What `config.json` holds: the recipe and mel scale in full, labels, origin of the weights, scores, file digests; and the language
    (a code such as `de`) of each label that has one."""

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

    def __post_init__(self) -> None:
        if self.vocoder is not None:
            self.vocoder.check(self.config.recipe.mel)


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
    return Bundle(config, model.eval().requires_grad_(False), vocoder, _read_card(folder))


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


def write_bundle(bundle: Bundle, folder: str | Path, force: bool = False) -> BundleConfig:
    """Write a bundle beside its place and rename it, whole or not at all; returns its config with digests.

    Weights are stored as float16, those of someone else's classifier as they are.
    Raises `OutputError` where the folder exists (`force` replaces a bundle, nothing else) or
    cannot be written, and `BundleError` for weights that float16 cannot hold.
    """
    folder = Path(os.path.realpath(folder))
    _check_place(folder, force)
    classifier = bundle.model.classifier.network
    external = bundle.config.recipe.external
    parts = {"classifier": classifier, "subnet": bundle.model.score_network}
    files = {"model.safetensors": _tensor_bytes(parts, {}, "classifier" if external else "")}
    if external is not None and classifier.program is not None:
        files[CODE_FILES[external.source]] = classifier.program
    if bundle.vocoder is not None:
        files["vocoder.safetensors"] = _tensor_bytes({"vocoder": bundle.vocoder}, {"mel": to_json(bundle.vocoder.mel)})
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    settings = to_dict(bundle.config) | {"format": FORMAT, "digests": digests}
    if not bundle.config.languages:
        del settings["languages"]  # so that who knows no languages can read it
    files["config.json"] = (json.dumps(settings, indent=2) + "\n").encode()
    files["README.md"] = bundle.card.encode()
    write_folder(folder, files, "the bundle")
    return from_dict(BundleConfig, settings)


def _check_place(folder: Path, force: bool) -> None:
    try:
        names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise OutputError(f"cannot write the bundle {folder}: {error.strerror}") from None
    if names and not {"config.json", "model.safetensors"} <= names <= set(FILES):
        raise OutputError(f"{folder} exists and is no bundle; choose another place")
    if names and not force:
        raise OutputError(f"{folder} exists; use --force to replace it")


def _tensor_bytes(parts: Mapping[str, nn.Module], metadata: dict[str, str], exact: str = "") -> bytes:
    """The state of the parts as a safetensors file, in float16 but for the part `exact`. At most one entry of metadata: the order
    of several is not fixed."""
    tensors = {
        f"{part}.{name}": value.detach().cpu().to(value.dtype if part == exact else torch.float16, copy=True).contiguous()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    for name, value in tensors.items():
        if not (value.isfinite().all() or (exact and name.startswith(f"{exact}."))):  # a mask of someone else's may be infinite
            raise BundleError(f"tensor {name!r} holds values that float16 cannot hold; the training went wrong")
    return save(tensors, metadata or None)


def locate(source: str | Path) -> Path:
    """The folder of a bundle given by name, folder or hub id, tried in this order. Raises `BundleError`.

    A name in the package comes first, so that the default bundle does not depend on where one stands; `./name` is the folder.
    """
    packaged = Path(__file__).parent / "bundles"
    names = sorted(p.name for p in packaged.iterdir() if p.is_dir()) if packaged.is_dir() else []
    if source in names:
        return packaged / source
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/")):
        return _fetch_from_hub(source)
    raise BundleError(
        f"no bundle at {source}; give a bundle folder, a hub id owner/name, or one of those in the package: {', '.join(names) or 'none'}"
    )


def _fetch_from_hub(source: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise BundleError(f"no folder {source}; to fetch it from the hub: pip install 'duovox[hub]'") from None
    try:
        return Path(snapshot_download(source, allow_patterns=list(FILES)))
    except Exception as error:  # the hub client raises many kinds; each means that there is no bundle to open
        raise BundleError(f"no folder {source}, and the hub did not give it: {str(error).splitlines()[0]}") from None
