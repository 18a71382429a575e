"""Files of someone else's network, told apart by content: takes paths and tensors, gives checked tensors to the other loaders.

Also what they share: errors of other people's code in one line, and `Loaded`. Pickled files are never opened.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from duovox.classifiers.copies import precision_note
from duovox.classifiers.weight_names import fitting_names
from duovox.config import MelInput, WaveInput
from duovox.contracts import ConfigError

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Loaded:
    """A network, how to build it again (`source`, `entry`, `arguments` as in `ExternalConfig`), and what came with it.

    `mel_input` or `wave_input` is what the model's own preprocessor says, `labels` the names in its configuration; None where it says
    nothing. Of the `source` "object" nothing but the module is left, which is exported where torch.export can. `code` is the file of an
    exported or scripted program, `notes` says in one sentence each what was done to the network. It is unmodified otherwise: neither its
    mode nor its flags are set here.
    """

    network: nn.Module
    source: Literal["factory", "huggingface", "export", "torchscript", "object"]
    entry: str = ""
    arguments: str = "{}"
    mel_input: MelInput | None = None
    wave_input: WaveInput | None = None
    labels: tuple[str, ...] | None = None
    code: bytes | None = None
    notes: tuple[str, ...] = ()


def attempt(doing: str, action: Any) -> Any:
    """What `action` returns; whatever other people's code raises becomes one line."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines() or [""]
        raise ConfigError(f"{doing} failed: {type(error).__name__}: {lines[0]}") from error


@contextmanager
def silence() -> Iterator[None]:
    """Torch without what it prints, logs and warns of while it reads or writes programs: errors say what matters."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `ConfigError`; pickled weights are refused unopened."""
    if not path.is_file():
        raise ConfigError(f"the weights {path} do not exist")
    if kind_of(path) != "safetensors":
        refuse(path, then="give that file as the weights")
    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"the weights {path} cannot be read: {error}") from None


def fill(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> tuple[str, ...]:
    """Copy the tensors into the network's state, each exactly once; only one name of tied tensors is needed.

    Names that a wrapper changed are understood. Gives one sentence on what was done to names or precision.
    """
    wanted = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    tensors, said = fitting_names(tensors, wanted)
    given = {_place(wanted[name]) for name in tensors if name in wanted}
    missing = [name for name, value in wanted.items() if name not in tensors and _place(value) not in given]
    unexpected = [name for name in tensors if name not in wanted]
    misshapen = [
        f"{name!r} ({_describe(tensors[name])}, the network has {_describe(value)})"
        for name, value in wanted.items()
        if name in tensors and (tensors[name].shape != value.shape or tensors[name].is_floating_point() != value.is_floating_point())
    ]
    demand_fit(where, missing, unexpected, misshapen)
    with torch.no_grad():
        for name in tensors:
            wanted[name].copy_(tensors[name])
    return (*said, *precision_note(tensors))


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Where a tensor's numbers lie: the same for tied tensors, and for no others."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() and not tensor.is_meta else (id(tensor),)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def demand_fit(where: str, missing: Sequence[str], unexpected: Sequence[str], misshapen: Sequence[str]) -> None:
    """Raise `ConfigError` that names the first tensor which does not fit, and counts them all."""
    if not (missing or unexpected or misshapen):
        return
    first = (
        f"{missing[0]!r} is missing" if missing else f"{unexpected[0]!r} is unexpected" if unexpected else f"{misshapen[0]} is misshapen"
    )
    counts = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(misshapen)} misshapen"
    raise ConfigError(f"{where} does not fit the network: tensor {first} ({counts})")


def kind_of(path: Path) -> str:
    """What a file is, by its content where that tells: export, torchscript, safetensors, pickle, onnx or unknown."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _archive_kind(archive.namelist())
        with path.open("rb") as file:
            start = file.read(9)
        header = int.from_bytes(start[:8], "little")
        if start[8:] == b"{" and header <= path.stat().st_size:
            return "safetensors"
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if path.suffix in PICKLED or re.match(rb"\x80[\x02-\x05]", start):
        return "pickle"
    return "onnx" if path.suffix == ".onnx" else "unknown"


def _archive_kind(names: Sequence[str]) -> str:
    """Torch writes everything as zip: exported programs hold JSON, TorchScript `constants.pkl` and code, the rest is pickle."""
    ends = {name.rpartition("/")[2] for name in names}
    if ends & {"archive_format", "serialized_exported_program.json"}:
        return "export"
    if "constants.pkl" in ends and any("/code/" in name for name in names):
        return "torchscript"
    return "pickle" if "data.pkl" in ends else "unknown"


NESTED = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "weights", "params")
"""Where checkpoints keep the weights of a network beside those of its training."""


def conversion(path: Path, target: Path) -> str:
    """The shell command that writes the weights of a pickled checkpoint to a safetensors file, wherever in it they lie.

    Torch reads tensors alone (`weights_only`), onto the CPU, from an open file, for it would judge a path by its suffix. Tied and
    strided tensors are copied, what is no tensor is left out.
    """
    code = (
        "import torch, safetensors.torch as s; "
        f"d = torch.load(open({str(path)!r}, 'rb'), map_location='cpu', weights_only=True); "
        f"[d := d[k] for k in {NESTED} * 2 if isinstance(d.get(k), dict)]; "
        "s.save_file({k: v.clone().contiguous() for k, v in d.items() if isinstance(v, torch.Tensor)}, "
        f"{str(target)!r}, {{'format': 'pt'}})"
    )
    return 'python -c "' + re.sub(r'(["$`\\])', r"\\\1", code) + '"'


def refuse(path: Path, target: Path | None = None, then: str = "") -> NoReturn:
    """Say what to do with a file that is not opened; `target` is where the converted weights belong, `then` what to do with them."""
    kind = kind_of(path)
    if kind in ("export", "torchscript"):
        raise ConfigError(f"{path} is no weights but a whole program: give it alone, as the classifier itself")
    if kind != "pickle":
        raise ConfigError(f"{path} is no safetensors, exported program (.pt2) or TorchScript file")
    new = target or _free(path.with_suffix(".safetensors"))
    then = then or f"name package.module:function, and give {new} as its weights"
    raise ConfigError(
        f"{path} is pickled; pickled checkpoints can run any code, so duovox does not open them; convert it once where you trust it: "
        f"{conversion(path, new)}, then {then} (if torch refuses: it holds more than tensors; save model.state_dict() where it was made)"
    )


def _free(path: Path) -> Path:
    """The path, or one like it under which nothing lies."""
    return path if not path.exists() else path.with_name(f"{path.stem}-converted{path.suffix}")
