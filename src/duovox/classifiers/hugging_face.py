"""Hugging Face folders: takes a folder as `save_pretrained` writes it, gives its network to `loading`.

Only classes of the installed transformers are built, from settings without anything that would fetch or run code.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from duovox.classifiers.copies import precision_note
from duovox.classifiers.network_files import Loaded, attempt, demand_fit, read_tensors, refuse
from duovox.classifiers.weight_names import without_wrappers
from duovox.config import MelInput, WaveInput, from_dict
from duovox.contracts import ConfigError

EXTRA = "Hugging Face models need the package transformers: pip install 'duovox[hf]'"
NOT_OURS = ("auto_map", "quantization_config", "fusion_config", "transformers_weights", "dtype", "torch_dtype", "name_or_path")
"""Entries of a Hugging Face configuration that make transformers fetch, run or replace something; so do those ending in
`_implementation`, which may name code on the hub. None of them is part of an architecture."""


def from_folder(folder: Path) -> Loaded:
    """A folder as `save_pretrained` writes it, loaded by transformers' own class; code inside the folder is never run."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} has no config.json, so it is no Hugging Face model")
    settings = _read_json(folder / "config.json")
    names = settings.get("architectures")
    if not isinstance(names, list) or not names:
        raise ConfigError(f"{folder / 'config.json'} names no architectures, so it is no Hugging Face model")
    kind = model_class(str(names[0]))
    config = configuration(kind, settings)
    tensors, renamed = without_wrappers(_folder_tensors(folder))
    network = _pretrained(kind, config, tensors, str(folder))
    arguments = json.dumps(json.loads(config.to_json_string(use_diff=False)))
    preprocessor = _read_preprocessor(folder)
    mel, wave = _mel_input(preprocessor, config), _wave_input(preprocessor)
    notes = (*renamed, *precision_note(tensors))
    return Loaded(network, "huggingface", kind.__name__, arguments, mel, wave, _labels(config), notes=notes)


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


def model_class(name: str) -> Any:
    """A model class of the installed transformers, by its name."""
    transformers = _transformers()
    kind = attempt(f"importing transformers.{name}", lambda: getattr(transformers, name, None))
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


def configuration(kind: Any, settings: Mapping[str, Any]) -> Any:
    """The class's own configuration; attention in plain torch, which has every gradient."""
    plain = _without_code(dict(settings))
    return attempt(f"configuring {kind.__name__}", lambda: kind.config_class.from_dict(plain, attn_implementation="eager"))


def _folder_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the parts that model.safetensors.index.json lists."""
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        parts = _read_json(index).get("weight_map")
        names = sorted({Path(str(name)).name for name in parts.values()}) if isinstance(parts, dict) else []
        return {key: value for name in names for key, value in read_tensors(folder / name).items()}
    if (folder / "pytorch_model.bin").is_file() and not (folder / "model.safetensors").is_file():
        refuse(folder / "pytorch_model.bin", folder / "model.safetensors", then="name the folder again")
    return read_tensors(folder / "model.safetensors")


def _pretrained(kind: Any, config: Any, tensors: dict[str, Tensor], where: str) -> nn.Module:
    """The model with its weights, float32. Transformers gets tensors, no folder: it renames what older versions of it named otherwise,
    and can open nothing else. What it would leave random is an error."""
    with _quiet():
        network, report = attempt(
            f"loading {kind.__name__}",
            lambda: kind.from_pretrained(None, config=config, state_dict=tensors, output_loading_info=True, ignore_mismatched_sizes=True),
        )
    misshapen = [f"{name!r} ({tuple(given)}, the network has {tuple(own)})" for name, given, own in sorted(report["mismatched_keys"])]
    demand_fit(where, sorted(report["missing_keys"]), sorted(report["unexpected_keys"]), misshapen)
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
