"""Writing a bundle: takes a `Bundle`, gives a folder, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from duovox.bundle.contents import CODE_FILES, FILES, FORMAT, Bundle, BundleConfig
from duovox.config import from_dict, to_dict, to_json
from duovox.contracts import BundleError, OutputError
from duovox.files import write_folder


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
    if bundle.student is not None:
        files["student.safetensors"] = _tensor_bytes({"student": bundle.student.network}, {})
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    settings = to_dict(bundle.config) | {"format": FORMAT, "digests": digests}
    if not bundle.config.languages:
        del settings["languages"]  # so that who knows no languages can read it, and no students
    if bundle.student is None:
        settings.pop("schooling", None)
        del settings["recipe"]["student"], settings["recipe"]["train_student"]
    del settings["recipe"]["train_speaker"]  # of no bundle's parts; versions before guides read it too
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
