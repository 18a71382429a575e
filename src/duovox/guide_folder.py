"""A guide on the disk: takes a network with its labels and strength, writes it as a folder; reads such a folder back, checked.

`guide.json` (settings, labels, temperatures, digests), `guide.safetensors` (weights, and the anchors of an embedding), or in the place of
weights the file of an exported or a scripted program. That is code: opening it asks for trust, as with bundles. A guide knows nothing of
the voice it is to guide; `steering` joins the two.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from duovox.bundle import CODE_FILES
from duovox.classifiers.frozen import fingerprint
from duovox.classifiers.loading import rebuild_network
from duovox.classifiers.network_files import fill
from duovox.config import GuideConfig, from_dict, to_json
from duovox.contracts import BundleError, ConfigError, GuideError, OutputError
from duovox.files import write_folder
from duovox.model import build_classifier, build_speaker
from duovox.shipped import GUIDES
from duovox.text import read_text

FORMAT = 1
DESCRIPTION, WEIGHTS = "guide.json", "guide.safetensors"
ANCHORS, NETWORK = "anchors", "network."


@dataclass(frozen=True, eq=False)
class GuideNetwork:
    """A network that can guide any voice: its settings, the network itself (someone else's, or a classifier of ours), the `anchors` (K, D)
    of an embedding, and the file of its program where it is one."""

    name: str
    config: GuideConfig
    network: nn.Module
    anchors: Tensor | None = None
    code: bytes | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What can be wanted of it."""
        return self.config.labels

    @property
    def digest(self) -> str:
        """The identity of all that decides what it answers."""
        return self.config.digest

    def write(self, folder: str | Path, force: bool = False) -> Path:
        """Write it to a folder, whole or not at all; from then on it is called by the folder's name. Raises `OutputError`, also for a
        network that no file can hold."""
        folder, external = Path(folder), self.config.recipe.external
        refuse_taken(folder, force)
        if external is not None and external.source == "object":
            raise OutputError("this guide's network exists in memory alone and torch.export cannot write it; load it by a function instead")
        files = {DESCRIPTION: (to_json(self.config) + "\n").encode(), WEIGHTS: save(self._tensors())}
        if external is not None and self.code is not None:
            files[CODE_FILES[external.source]] = self.code
        write_folder(folder, files, "the guide")
        return folder

    def _tensors(self) -> dict[str, Tensor]:
        state = self.network.state_dict() if self.code is None else {}
        tensors = {f"{NETWORK}{name}": value.detach().cpu().contiguous().clone() for name, value in state.items()}
        tensors |= {} if self.anchors is None else {ANCHORS: self.anchors.cpu().contiguous()}
        return {name: _smallest(value) for name, value in tensors.items()}


def _smallest(values: Tensor) -> Tensor:
    """The same values in half the precision where that loses nothing (see `halved`)."""
    half = values.half() if values.dtype == torch.float32 else values
    return half if torch.equal(half.to(values.dtype), values) else values


def halved(guide: GuideNetwork) -> GuideNetwork:
    """The same guide with weights and anchors rounded to half precision, in which its files are half as long."""
    network = copy.deepcopy(guide.network).half().float()
    return with_digests(replace(guide, network=network, anchors=None if guide.anchors is None else guide.anchors.half().float()))


def with_digests(guide: GuideNetwork) -> GuideNetwork:
    """The same guide, its settings naming the digests of its parts."""
    return replace(guide, config=replace(guide.config, digests=digests_of(guide.network, guide.anchors, guide.code)))


def digests_of(network: nn.Module, anchors: Tensor | None, code: bytes | None) -> dict[str, str]:
    """SHA-256 of each part that there is; a program holds its weights."""
    found = {"network": fingerprint(network)} if code is None else {"program": hashlib.sha256(code).hexdigest()}
    if anchors is not None:
        found["anchors"] = hashlib.sha256(anchors.cpu().contiguous().numpy().tobytes()).hexdigest()
    return found


def refuse_taken(folder: Path, force: bool) -> None:
    """Raise `OutputError` for a folder that a guide may not be written to: one that exists, unless it is a guide and `force` is given."""
    if folder.exists() and not (force and is_guide(folder)):
        hint = "; add --force to overwrite it" if is_guide(folder) else " and is no guide; choose a new folder"
        raise OutputError(f"{folder} exists{hint}")


def is_guide(folder: Path) -> bool:
    """Whether a folder holds a guide."""
    return (folder / DESCRIPTION).is_file()


def packaged_guides() -> list[str]:
    """The names of the guides in the package."""
    return sorted(path.name for path in GUIDES.iterdir() if is_guide(path)) if GUIDES.is_dir() else []


def locate_guide(source: str | Path) -> Path:
    """The folder of a guide: of one in the package where it is named (`./name` is the folder), else the folder itself."""
    return GUIDES / source if source in packaged_guides() else Path(source)


def read_guide(folder: str | Path, trust_code: bool = False) -> GuideNetwork:
    """The guide in a folder that `GuideNetwork.write` made, or of that name in the package. Raises `GuideError` for one that is missing,
    damaged or of another version, and unless `trust_code` where it would run code that the folder names or holds."""
    folder = locate_guide(folder)
    config = _read_config(folder)
    tensors = _read_tensors(folder / WEIGHTS)
    anchors = tensors.pop(ANCHORS, None)
    code = _read_code(folder, config)
    anchors = _checked(folder, config, anchors)
    network = _network(folder, config, anchors, {name.removeprefix(NETWORK): value for name, value in tensors.items()}, trust_code)
    for part, digest in digests_of(network, anchors, code).items():
        if config.digests.get(part) != digest:
            raise GuideError(f"the {part} of the guide {folder} is not the one its {DESCRIPTION} names; make the guide again")
    return GuideNetwork(folder.resolve().name, config, network.eval().requires_grad_(False), anchors, code)


def _read_config(folder: Path) -> GuideConfig:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise GuideError(f"{folder} is no guide: it has no {DESCRIPTION}; make one with `duovox guide`")
    try:
        data: Any = json.loads(read_text(path))
        version = data.get("format") if isinstance(data, dict) else None
        if version != FORMAT:
            raise GuideError(f"{path} has guide format {version!r}, duovox reads format {FORMAT}; make the guide again")
        return from_dict(GuideConfig, data)
    except (OSError, ValueError, ConfigError) as error:
        raise GuideError(f"{path} cannot be read: {error}") from None


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (OSError, SafetensorError) as error:
        raise GuideError(f"{path} cannot be read: {error}; make the guide again") from None


def _checked(folder: Path, config: GuideConfig, anchors: Tensor | None) -> Tensor | None:
    """The anchors (K, D) of an embedding in float32, which must be more than its labels: the rest is background."""
    if config.kind == "embedding" and (anchors is None or anchors.ndim != 2 or len(anchors) <= len(config.labels)):
        found = "none" if anchors is None else f"a tensor of shape {tuple(anchors.shape)}"
        raise GuideError(
            f"the guide {folder} needs anchors of {len(config.labels)} references and background, and has {found}; make it again"
        )
    return None if anchors is None else anchors.float()


def _read_code(folder: Path, config: GuideConfig) -> bytes | None:
    """The file of the guide's program, which must be the one that was written; it is not run here."""
    external = config.recipe.external
    name = CODE_FILES.get(external.source) if external is not None else None
    if name is None:
        return None
    try:
        code = (folder / name).read_bytes()
    except OSError as error:
        raise GuideError(f"the guide's program {folder / name} cannot be read: {error.strerror or error}") from None
    if hashlib.sha256(code).hexdigest() != config.digests.get("program"):
        raise GuideError(f"the program of the guide {folder} is not the one its {DESCRIPTION} names; make the guide again")
    return code


def _ours(config: GuideConfig, anchors: Tensor | None) -> nn.Module:
    """A network of ours with fresh weights: one that embeds as many numbers as the anchors have, or a classifier of the labels."""
    if config.kind == "embedding" and anchors is not None:
        return build_speaker(config.recipe, anchors.shape[1])
    return build_classifier(config.recipe, len(config.labels))


def _network(folder: Path, config: GuideConfig, anchors: Tensor | None, tensors: dict[str, Tensor], trust_code: bool) -> nn.Module:
    external = config.recipe.external
    try:
        if external is not None:
            name = CODE_FILES.get(external.source)
            return rebuild_network(external, None if name else tensors, folder / name if name else None, trust_code)
        ours = _ours(config, anchors)
        fill(ours, tensors, f"the guide {folder}")
        return ours
    except (BundleError, ConfigError) as error:
        said = str(error).replace("which its bundle chose", "which the folder of the guide chose")
        raise GuideError(f"the guide {folder}: {said}") from None
