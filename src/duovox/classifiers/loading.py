"""Getting someone's network from where it lives: a function, a Hugging Face folder, an exported program or a TorchScript file.

Takes what the user names, or what a bundle's `ExternalConfig` says; gives a plain `nn.Module` and what is known of its input and its
labels to whoever wraps it as a classifier. Weights come from safetensors files alone. A function, an exported program and a
TorchScript file are code, and loading them runs it: naming one oneself is the trust; a bundle needs `trust_code=True`.
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from duovox.classifiers.copies import in_float32, precision_note
from duovox.classifiers.exported import Scripted, export_bytes, read_exported, read_script
from duovox.classifiers.hugging_face import configuration, from_folder, model_class
from duovox.classifiers.network_files import Loaded, attempt, fill, kind_of, read_tensors, refuse
from duovox.classifiers.onnx_graphs import read_onnx
from duovox.config import ExternalConfig
from duovox.contracts import BundleError, ConfigError

__all__ = ["Loaded", "export_bytes", "load_network", "needs", "rebuild_network"]


def load_network(
    source: str | Path, weights: str | Path | None = None, arguments: Mapping[str, Any] | None = None, trust_code: bool = False
) -> Loaded:
    """The network that the caller names: `package.module:function`, a Hugging Face folder, a .pt2 file, a TorchScript or an ONNX file.

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
        return from_folder(path)
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
        raise BundleError(
            f"loading this classifier would run {code}, which its bundle chose; if you trust it: trust_code=True, --trust-code"
        )
    try:
        network = _build(external, code_file)
        if tensors is not None:
            fill(in_float32(network), tensors, "the bundle's classifier")
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
        kind = model_class(external.entry)
        config = configuration(kind, json.loads(external.arguments))
        return attempt(f"building {kind.__name__}", lambda: kind(config))
    if code_file is None or not code_file.is_file():
        raise ConfigError(f"the classifier's program {code_file or ''} is missing")
    if kind_of(code_file) != external.source:
        raise ConfigError(f"{code_file} is no file of the kind {external.source!r}")
    return _from_file(code_file).network


def _from_factory(entry: str, weights: str | Path | None, arguments: Mapping[str, Any]) -> Loaded:
    try:
        text = json.dumps(dict(arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the arguments of {entry} must be numbers, texts, lists and tables: {error}") from None
    tensors = None if weights is None else read_tensors(Path(weights))
    network = _call_factory(entry, text)
    notes = precision_note(network) if tensors is None else fill(in_float32(network), tensors, str(weights))
    return Loaded(network, "factory", entry, text, notes=notes)


def _call_factory(entry: str, arguments: str) -> nn.Module:
    """Import and call `entry` with arguments that went through JSON, as they will when the network is built again."""
    name, _, function = entry.partition(":")
    with _current_folder_importable():
        build = _function(_import(name), function)
        network = attempt(f"calling {entry}", lambda: build(**json.loads(arguments)))
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
        return attempt(f"importing {name}", lambda: importlib.import_module(name))
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


def _from_file(path: Path) -> Loaded:
    kind = kind_of(path)
    if kind == "export":
        return Loaded(read_exported(path, str(path)), "export", code=path.read_bytes())
    if kind == "torchscript":
        program = Scripted(attempt(f"reading {path}", lambda: read_script(path)))
        return Loaded(program, "torchscript", code=path.read_bytes())
    if kind == "onnx":
        return Loaded(read_onnx(path), "object", notes=("it was turned from an ONNX graph into a torch network by onnx2torch",))
    if kind == "safetensors":
        raise ConfigError(f"{path} holds weights but no network: name package.module:function, and give this file as its weights")
    refuse(path)
