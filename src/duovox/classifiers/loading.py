"""Getting someone's network from where it lives: a function, a Hugging Face folder, an exported program or a TorchScript file.

Takes what the user names, or what a bundle's `ExternalConfig` says; gives a plain `nn.Module` and what is known of its input and its
labels to whoever wraps it as a classifier. Weights come from safetensors files alone. A function, an exported program and a
TorchScript file are code, and loading them runs it: naming one oneself is the trust; a bundle needs `trust_code=True`.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import io
import json
import logging
import re
import sys
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

from duovox.config import ExternalConfig, MelInput, WaveInput, from_dict
from duovox.contracts import BundleError, ConfigError, ShapeError

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
EXTRA = "Hugging Face models need the package transformers: pip install 'duovox[hf]'"
NOT_OURS = ("auto_map", "quantization_config", "fusion_config", "transformers_weights", "dtype", "torch_dtype", "name_or_path")
"""Entries of a Hugging Face configuration that make transformers fetch, run or replace something; so do those ending in
`_implementation`, which may name code on the hub. None of them is part of an architecture."""


@dataclass(frozen=True)
class Loaded:
    """A network, how to build it again (`source`, `entry`, `arguments` as in `ExternalConfig`), and what came with it.

    `mel_input` or `wave_input` is what the model's own preprocessor says, `labels` the names in its configuration; None where it
    says nothing. `code` is the file of an exported or scripted program. The network is as it came: neither its mode nor its flags
    are set here.
    """

    network: nn.Module
    source: Literal["factory", "huggingface", "export", "torchscript"]
    entry: str = ""
    arguments: str = "{}"
    mel_input: MelInput | None = None
    wave_input: WaveInput | None = None
    labels: tuple[str, ...] | None = None
    code: bytes | None = None


class Scripted(nn.Module):
    """A TorchScript program as a plain module: a `ScriptModule` itself refuses `requires_grad_` and every Python hook.

    Gradients reach its input. No layer inside of it can be tapped.
    """

    def __init__(self, program: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.program = program

    def forward(self, *inputs: Tensor) -> Any:
        return self.program(*inputs)


def load_network(
    source: str | Path, weights: str | Path | None = None, arguments: Mapping[str, Any] | None = None, trust_code: bool = False
) -> Loaded:
    """The network that the caller names: `package.module:function`, a Hugging Face folder, a .pt2 file or a TorchScript file.

    A function is imported (from the current folder too) and called with the keyword `arguments`, which must be JSON; then
    `weights`, a .safetensors file, fills its network: every tensor once, nothing else. Without `weights` the function loads its own.
    Functions, .pt2 and TorchScript files run code of theirs; as the caller named them, `trust_code` is not asked for.
    Raises `ConfigError`, one line, for everything that is no network, and for pickled files, which are never opened.
    """
    path = Path(source)
    if not path.exists() and re.fullmatch(r"[\w.]+:\w+", str(source)):
        return _from_factory(str(source), weights, arguments or {})
    if weights is not None or arguments:
        raise ConfigError(f"{source} brings its own weights and settings; only package.module:function takes weights and arguments")
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise ConfigError(f"{source} does not exist, and is not of the form package.module:function")
    return _from_file(path)


def rebuild_network(external: ExternalConfig, tensors: Mapping[str, Tensor] | None, code_file: Path | None, trust_code: bool) -> nn.Module:
    """The network of a bundle: built from `entry` and `arguments`, or from `code_file`; then filled with `tensors`, if given, strictly.

    Raises `BundleError` for whatever cannot be built, and unless `trust_code` where it would run code that the bundle names or
    holds. Hugging Face settings run classes of the installed transformers alone and need no trust.
    """
    if external.source == "object":
        raise BundleError(f"this bundle cannot build its classifier: {needs(external)}")
    code = f"the function {external.entry}" if external.source == "factory" else f"the program {code_file}"
    if external.source != "huggingface" and not trust_code:
        raise BundleError(f"loading this classifier would run {code}, which its bundle chose; if you trust it, pass trust_code=True")
    try:
        network = _build(external, code_file)
        if tensors is not None:
            _fill(network, tensors, "the bundle's classifier")
        return network
    except ConfigError as error:
        raise BundleError(str(error)) from error


def needs(external: ExternalConfig) -> str:
    """One sentence: what is needed to load the network again."""
    module, _, function = external.entry.partition(":")
    return {
        "factory": f"the module {module} with its function {function} must be importable",
        "huggingface": "the package transformers must be installed (pip install 'duovox[hf]')",
        "export": "nothing beyond torch is needed",
        "torchscript": "nothing beyond torch is needed",
        "object": "the module itself must be passed: Duovox.from_pretrained(path, classifier=module)",
    }[external.source]


def _build(external: ExternalConfig, code_file: Path | None) -> nn.Module:
    if external.source == "factory":
        return _call_factory(external.entry, external.arguments)
    if external.source == "huggingface":
        kind = _model_class(external.entry)
        config = _configuration(kind, json.loads(external.arguments))
        return _attempt(f"building {kind.__name__}", lambda: kind(config))
    if code_file is None or not code_file.is_file():
        raise ConfigError(f"the classifier's program {code_file or ''} is missing")
    if _kind(code_file) != external.source:
        raise ConfigError(f"{code_file} is no file of the kind {external.source!r}")
    return _from_file(code_file).network


def _attempt(doing: str, action: Any) -> Any:
    """What `action` returns; whatever other people's code raises becomes one line."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines() or [""]
        raise ConfigError(f"{doing} failed: {type(error).__name__}: {lines[0]}") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Torch without what it prints, logs and warns of while it reads or writes programs: errors say what matters."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


# Functions


def _from_factory(entry: str, weights: str | Path | None, arguments: Mapping[str, Any]) -> Loaded:
    try:
        text = json.dumps(dict(arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the arguments of {entry} must be numbers, texts, lists and tables: {error}") from None
    tensors = None if weights is None else _read_tensors(Path(weights))
    network = _call_factory(entry, text)
    if tensors is not None:
        _fill(network, tensors, str(weights))
    return Loaded(network, "factory", entry, text)


def _call_factory(entry: str, arguments: str) -> nn.Module:
    """Import and call `entry` with arguments that went through JSON, as they will when the network is built again."""
    name, _, function = entry.partition(":")
    with _current_folder_importable():
        build = _function(_import(name), function)
        network = _attempt(f"calling {entry}", lambda: build(**json.loads(arguments)))
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{entry} gave {type(network).__name__!r}, not a torch.nn.Module")
    return network


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    """The current folder comes first among the places of modules, as with `python -m`."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _import(name: str) -> Any:
    try:
        return _attempt(f"importing {name}", lambda: importlib.import_module(name))
    except ConfigError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
            raise ConfigError(f"cannot import {name!r}: {cause}; it must lie in the current folder or be installed") from None
        raise


def _function(module: Any, name: str) -> Any:
    build = getattr(module, name, None)
    if callable(build):
        return build
    near = difflib.get_close_matches(name, [n for n in dir(module) if callable(getattr(module, n, None))], 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(f"the module {module.__name__} has no function {name!r}{hint}")


# Tensors


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `ConfigError`; pickled weights are refused unopened."""
    if not path.is_file():
        raise ConfigError(f"the weights {path} do not exist")
    if _kind(path) != "safetensors":
        _refuse(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"the weights {path} cannot be read: {error}") from None


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy the tensors into the network's state, each exactly once; only one name of tied tensors is needed."""
    wanted = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    given = {_place(wanted[name]) for name in tensors if name in wanted}
    missing = [name for name, value in wanted.items() if name not in tensors and _place(value) not in given]
    unexpected = [name for name in tensors if name not in wanted]
    misshapen = [
        f"{name!r} ({_describe(tensors[name])}, the network has {_describe(value)})"
        for name, value in wanted.items()
        if name in tensors and (tensors[name].shape != value.shape or tensors[name].is_floating_point() != value.is_floating_point())
    ]
    _demand_fit(where, missing, unexpected, misshapen)
    with torch.no_grad():
        for name in tensors:
            wanted[name].copy_(tensors[name])


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Where a tensor's numbers lie: the same for tied tensors, and for no others."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() and not tensor.is_meta else (id(tensor),)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _demand_fit(where: str, missing: Sequence[str], unexpected: Sequence[str], misshapen: Sequence[str]) -> None:
    """Raise `ConfigError` that names the first tensor which does not fit, and counts them all."""
    if not (missing or unexpected or misshapen):
        return
    first = (
        f"{missing[0]!r} is missing" if missing else f"{unexpected[0]!r} is unexpected" if unexpected else f"{misshapen[0]} is misshapen"
    )
    counts = f"{len(missing)} missing, {len(unexpected)} unexpected, {len(misshapen)} misshapen"
    raise ConfigError(f"{where} does not fit the network: tensor {first} ({counts})")


# Files


def _kind(path: Path) -> str:
    """What a file is, by its content where that tells: export, torchscript, safetensors, pickle or unknown."""
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
    return "pickle" if path.suffix in PICKLED or re.match(rb"\x80[\x02-\x05]", start) else "unknown"


def _archive_kind(names: Sequence[str]) -> str:
    """Torch writes everything as zip: exported programs hold JSON, TorchScript `constants.pkl` and code, the rest is pickle."""
    ends = {name.rpartition("/")[2] for name in names}
    if ends & {"archive_format", "serialized_exported_program.json"}:
        return "export"
    if "constants.pkl" in ends and any("/code/" in name for name in names):
        return "torchscript"
    return "pickle" if "data.pkl" in ends else "unknown"


def _from_file(path: Path) -> Loaded:
    kind = _kind(path)
    if kind == "export":
        return Loaded(_exported(path, str(path)), "export", code=path.read_bytes())
    if kind == "torchscript":
        program = Scripted(_attempt(f"reading {path}", lambda: _read_script(path)))
        return Loaded(program, "torchscript", code=path.read_bytes())
    if kind == "safetensors":
        raise ConfigError(f"{path} holds weights but no network: name package.module:function, and give this file as its weights")
    _refuse(path)


def _read_script(path: Path) -> Any:
    with _silence():
        return torch.jit.load(str(path), map_location="cpu")


def _refuse(path: Path, target: Path | None = None) -> NoReturn:
    """Say what to do with a file that is not opened; `target` is where the converted weights belong."""
    if _kind(path) != "pickle":
        raise ConfigError(f"{path} is no safetensors, exported program (.pt2) or TorchScript file")
    new = target or path.with_suffix(".safetensors")
    convert = f"s.save_file(torch.load('{path}', weights_only=True), '{new}', {{'format': 'pt'}})"
    raise ConfigError(
        f"{path} is pickled; pickled checkpoints can run any code, so duovox does not open them; convert it once where you trust it: "
        f'python -c "import torch, safetensors.torch as s; {convert}"'
        + ("" if target else f", then name package.module:function and give --weights {new}")
    )


# Exported programs


def _exported(file: Path | io.BytesIO, where: str) -> nn.Module:
    """An exported program as a module with its layers' names, which can be hooked, copied and told `eval()` without effect.

    Raises `ConfigError` for a program that is unfit: exported in training mode, or for one size of batch alone.
    """
    with _silence():
        program = _attempt(f"reading {where}", lambda: torch.export.load(file))
        _demand_eval(program, where)
        shape = _input_shape(program)
        if shape and shape[0] is not None:
            raise ConfigError(f"{where} was exported for batches of {shape[0]} alone: export it with dynamic_shapes=({{0: Dim('batch')}},)")
        network: nn.Module = _attempt(f"unfolding {where}", lambda: torch.export.unflatten(program))
    _forget_examples(network)
    network.register_forward_pre_hook(functools.partial(_check_input, shape, where))
    return network


def _demand_eval(program: torch.export.ExportedProgram, where: str) -> None:
    """Dropout and batch statistics are written into the graph as they were at export; no `eval()` can turn them off later."""
    for node in program.graph.nodes:
        names = [argument.name for argument in getattr(getattr(node.target, "_schema", None), "arguments", ())]
        settings = dict(zip(names, node.args, strict=False)) | node.kwargs
        if settings.get("train") is True or settings.get("training") is True or settings.get("dropout_p"):
            raise ConfigError(f"{where} was exported in training mode ({node.target}): export it after network.eval()")


def _input_shape(program: torch.export.ExportedProgram) -> tuple[int | None, ...]:
    """The shape of the first input, None where any size will do."""
    example = next((n.meta.get("val") for n in program.graph.nodes if n.name in program.graph_signature.user_inputs), None)
    return tuple(size if isinstance(size, int) else None for size in example.shape) if isinstance(example, Tensor) else ()


def _forget_examples(network: nn.Module) -> None:
    """Drop the example values of the graphs, whose symbolic sizes no `deepcopy` survives (torch 2.13); nothing computes with them."""
    for module in network.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("val", None)


def _check_input(shape: tuple[int | None, ...], where: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Raise `ShapeError` for an input of another shape than the program was exported for."""
    given = tuple(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else ()
    fits = len(given) == len(shape) and all(size in (None, got) for size, got in zip(shape, given, strict=True))
    if shape and not fits:
        wanted = ", ".join("B" if size is None else str(size) for size in shape)
        raise ShapeError(f"{where} takes inputs of shape ({wanted}), got {given}")


def export_bytes(network: nn.Module, example: Tensor, taps: Sequence[str] = ()) -> bytes | None:
    """The network as an exported program (.pt2, any batch, eval mode), or None where torch.export cannot do it faithfully.

    `example` (B, ...) is one input; `taps` are layers whose output must keep its form (that of a GRU would else be its first part
    alone, no tuple). Faithful means: at batch 1 and 3, on other inputs too, the outputs and each tap's first tensor are those of
    the module. The module is copied first and stays as it is: hooks, mode, flags and buffers.
    """
    try:
        twin = copy.deepcopy(network).eval()
        item = example[:1].detach()
        inputs = torch.cat([item, 0.5 * item.flip(-1), -item])
        content = _export(twin, inputs, taps)
        again = _exported(io.BytesIO(content), "the exported network")
        same = all(_agree(_run(twin, x, taps), _run(again, x, taps)) for x in (inputs[:1], inputs))
    except Exception:  # torch.export raises errors of every kind for what it cannot follow
        return None
    return content if same else None


def _export(network: nn.Module, inputs: Tensor, taps: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with _silence():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(network, (inputs,), dynamic_shapes=shapes, strict=False, preserve_module_call_signature=tuple(taps))
        torch.export.save(program, buffer)
    return buffer.getvalue()


@torch.no_grad()
def _run(network: nn.Module, inputs: Tensor, taps: Sequence[str]) -> list[Tensor]:
    """Every tensor that the network gives, and the first that each tap gives; outputs that nothing uses are not in a program."""
    tapped: list[Tensor] = []
    hooks = [network.get_submodule(name).register_forward_hook(lambda _, __, output: tapped.extend(_leaves(output)[:1])) for name in taps]
    try:
        return [*_leaves(network(inputs)), *tapped]
    finally:
        for hook in hooks:
            hook.remove()


def _leaves(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [leaf for part in parts for leaf in _leaves(part)]


def _agree(expected: Sequence[Tensor], given: Sequence[Tensor]) -> bool:
    pairs = zip(expected, given, strict=False)
    return bool(expected) and len(expected) == len(given) and all(a.shape == b.shape and a.allclose(b, 1e-4, 1e-5) for a, b in pairs)


# Hugging Face


def _from_folder(folder: Path) -> Loaded:
    """A folder as `save_pretrained` writes it, loaded by transformers' own class; code inside the folder is never run."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} has no config.json, so it is no Hugging Face model")
    settings = _read_json(folder / "config.json")
    names = settings.get("architectures")
    if not isinstance(names, list) or not names:
        raise ConfigError(f"{folder / 'config.json'} names no architectures, so it is no Hugging Face model")
    kind = _model_class(str(names[0]))
    config = _configuration(kind, settings)
    network = _pretrained(kind, config, _folder_tensors(folder), str(folder))
    arguments = json.dumps(json.loads(config.to_json_string(use_diff=False)))
    preprocessor = _read_preprocessor(folder)
    mel, wave = _mel_input(preprocessor, config), _wave_input(preprocessor)
    return Loaded(network, "huggingface", kind.__name__, arguments, mel, wave, _labels(config))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no table of settings")
    return data


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(f"{EXTRA} ({str(error).splitlines()[0]})") from None


def _model_class(name: str) -> Any:
    """A model class of the installed transformers, by its name."""
    transformers = _transformers()
    kind = _attempt(f"importing transformers.{name}", lambda: getattr(transformers, name, None))
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel) or getattr(kind, "config_class", None) is None:
        raise ConfigError(f"transformers {transformers.__version__} has no model class {name!r}, and code from model folders is never run")
    return kind


def _without_code(settings: Any) -> Any:
    """A configuration without the entries that could make transformers fetch, run or replace anything (`NOT_OURS`)."""
    if isinstance(settings, list):
        return [_without_code(item) for item in settings]
    if not isinstance(settings, dict):
        return settings
    kept = [key for key in settings if not (key in NOT_OURS or key.startswith("_") or key.endswith("_implementation"))]
    return {key: _without_code(settings[key]) for key in kept}


def _configuration(kind: Any, settings: Mapping[str, Any]) -> Any:
    """The class's own configuration; attention in plain torch, which has every gradient."""
    plain = _without_code(dict(settings))
    return _attempt(f"configuring {kind.__name__}", lambda: kind.config_class.from_dict(plain, attn_implementation="eager"))


def _folder_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the parts that model.safetensors.index.json lists."""
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        parts = _read_json(index).get("weight_map")
        names = sorted({Path(str(name)).name for name in parts.values()}) if isinstance(parts, dict) else []
        return {key: value for name in names for key, value in _read_tensors(folder / name).items()}
    if (folder / "pytorch_model.bin").is_file() and not (folder / "model.safetensors").is_file():
        _refuse(folder / "pytorch_model.bin", folder / "model.safetensors")
    return _read_tensors(folder / "model.safetensors")


def _pretrained(kind: Any, config: Any, tensors: dict[str, Tensor], where: str) -> nn.Module:
    """The model with its weights, float32. Transformers gets tensors, no folder: it renames what older versions of it named otherwise,
    and can open nothing else. What it would leave random is an error."""
    with _quiet():
        network, report = _attempt(
            f"loading {kind.__name__}",
            lambda: kind.from_pretrained(None, config=config, state_dict=tensors, output_loading_info=True, ignore_mismatched_sizes=True),
        )
    misshapen = [f"{name!r} ({tuple(given)}, the network has {tuple(own)})" for name, given, own in sorted(report["mismatched_keys"])]
    _demand_fit(where, sorted(report["missing_keys"]), sorted(report["unexpected_keys"]), misshapen)
    if report.get("error_msgs"):
        raise ConfigError(f"{where} cannot be loaded: {str(report['error_msgs'][0]).splitlines()[0]}")
    result: nn.Module = network.float()
    return result


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers without its progress bar and its report of tensors that do not fit: we say that ourselves."""
    log = _transformers().utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _read_preprocessor(folder: Path) -> dict[str, Any]:
    """What the folder says of its feature extractor, alone or as part of a processor; empty where it says nothing."""
    if (folder / "preprocessor_config.json").is_file():
        return _read_json(folder / "preprocessor_config.json")
    part = _read_json(folder / "processor_config.json").get("feature_extractor") if (folder / "processor_config.json").is_file() else {}
    return part if isinstance(part, dict) else {}


def _mel_input(preprocessor: Mapping[str, Any], config: Any) -> MelInput | None:
    """Whisper's log-mel (arXiv 2212.04356, section 2.2), whose filters end at 8000 Hz; the encoder halves its frames."""
    positions = getattr(config, "max_source_positions", None)
    if preprocessor.get("feature_extractor_type") != "WhisperFeatureExtractor" or not isinstance(positions, int):
        return None
    rate, n_fft = preprocessor.get("sampling_rate", 16000), preprocessor.get("n_fft", 400)
    sizes = {
        "sample_rate": rate,
        "n_fft": n_fft,
        "win_length": n_fft,
        "hop_length": preprocessor.get("hop_length", 160),
        "n_mels": preprocessor.get("feature_size", 80),
        "frames": 2 * positions,
        "fmax": min(8000.0, rate / 2) if isinstance(rate, int) else 8000.0,
    }
    values = {"power": 2, "log": "log10", "floor": 1e-10, "normalise": "whisper", "layout": "BMT"}
    return from_dict(MelInput, sizes | values, "preprocessor_config.json")


def _wave_input(preprocessor: Mapping[str, Any]) -> WaveInput | None:
    """Wav2vec 2.0's waveform; it has no length of its own, so one second."""
    if preprocessor.get("feature_extractor_type") != "Wav2Vec2FeatureExtractor":
        return None
    rate = preprocessor.get("sampling_rate", 16000)
    normalise = "item" if preprocessor.get("do_normalize", True) else "none"
    return from_dict(WaveInput, {"sample_rate": rate, "samples": rate, "normalise": normalise}, "preprocessor_config.json")


def _labels(config: Any) -> tuple[str, ...] | None:
    """The configuration's label names in the order of the logits; None for placeholders, gaps and doubles."""
    names = getattr(config, "id2label", None) or {}
    labels = tuple(str(names[index]) for index in range(len(names)) if index in names)
    invented = any(re.fullmatch(r"LABEL_\d+", label) for label in labels)
    return labels if labels and not invented and len(set(labels)) == len(names) else None
