"""hugging_face.py: a folder of transformers gives its network, input and labels, and its code is never run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from networks_on_disk import external, one_line, write_pickle
from safetensors.torch import load_file, save_file
from torch import nn

from duovox.classifiers import hugging_face
from duovox.classifiers.loading import load_network, rebuild_network
from duovox.config import MelInput, WaveInput
from duovox.contracts import BundleError, ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


def write_model(folder: Path, name: str) -> nn.Module:
    """A tiny model of transformers in a folder, with its preprocessor."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "classifier_proj_size": 8}
    if name == "whisper":
        sizes = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "max_source_positions": 20}
        names = {"id2label": {0: "yes", 1: "no", 2: "stop"}, "label2id": {"yes": 0, "no": 1, "stop": 2}}
        config = transformers.WhisperConfig(**small, **sizes, **names, num_mel_bins=10, decoder_start_token_id=1)
        network, extractor = transformers.WhisperForAudioClassification(config), transformers.WhisperFeatureExtractor(feature_size=10)
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 4}
        convolutions = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_feat_extract_layers": 2}
        position = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
        config = transformers.Wav2Vec2Config(**small, **sizes, **convolutions, **position)
        network, extractor = transformers.Wav2Vec2ForSequenceClassification(config), transformers.Wav2Vec2FeatureExtractor()
    with hugging_face._quiet():
        network.save_pretrained(folder)
        extractor.save_pretrained(folder)
    return network.eval()


def change_json(path: Path, **changes: Any) -> None:
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


@pytest.fixture
def whisper(tmp_path: Path) -> tuple[Path, nn.Module]:
    return tmp_path / "model", write_model(tmp_path / "model", "whisper")


MELS = torch.randn(2, 10, 40, generator=torch.Generator().manual_seed(0))


def test_whisper_comes_with_weights_input_and_labels(whisper: tuple[Path, nn.Module], capfd: pytest.CaptureFixture[str]) -> None:
    folder, original = whisper
    loaded = load_network(folder)
    assert (loaded.source, loaded.entry) == ("huggingface", "WhisperForAudioClassification")
    assert loaded.mel_input == MelInput(
        16000, 400, 400, 160, 10, 0.0, 8000.0, 40, "slaney", "slaney", 2, "log10", 1e-10, "whisper", layout="BMT"
    )
    assert loaded.wave_input is None
    assert loaded.labels == ("yes", "no", "stop")
    assert torch.allclose(loaded.network.eval()(MELS).logits, original(MELS).logits, atol=1e-5)
    assert capfd.readouterr() == ("", "")


def test_wav2vec_comes_with_its_wave_and_no_invented_labels(tmp_path: Path) -> None:
    original = write_model(tmp_path, "wav2vec")
    loaded = load_network(tmp_path)
    assert loaded.wave_input == WaveInput(16000, 16000, "item", "BS")
    assert (loaded.mel_input, loaded.labels) == (None, None)
    wave = torch.randn(2, 800, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loaded.network.eval()(wave).logits, original(wave).logits, atol=1e-5)
    change_json(tmp_path / "preprocessor_config.json", do_normalize=False, sampling_rate=8000)
    assert load_network(tmp_path).wave_input == WaveInput(8000, 8000, "none", "BS")


def test_old_names_of_weights_are_understood(tmp_path: Path) -> None:
    """Files from before torch's parametrizations name weight norm's parts otherwise."""
    write_model(tmp_path, "wav2vec")
    state = load_file(tmp_path / "model.safetensors")
    expected = state["wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1"]
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, name in old.items():
        state = {key.replace(new, name): value for key, value in state.items()}
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_v" in state
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    network = load_network(tmp_path).network
    assert torch.equal(network.state_dict()["wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original1"], expected)


def test_a_model_is_rebuilt_without_its_folder_and_without_trust(whisper: tuple[Path, nn.Module]) -> None:
    folder, original = whisper
    loaded = load_network(folder)
    assert str(folder) not in loaded.arguments
    config = external(source="huggingface", entry=loaded.entry, arguments=loaded.arguments)
    (folder / "model.safetensors").unlink()
    network = rebuild_network(config, original.state_dict(), None, trust_code=False).eval()
    assert torch.allclose(network(MELS).logits, original(MELS).logits, atol=1e-5)


def test_half_precision_and_parts_are_joined(whisper: tuple[Path, nn.Module]) -> None:
    folder, original = whisper
    state = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    parts = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(state)}
    for part in set(parts.values()):
        save_file({name: value for name, value in state.items() if parts[name] == part}, folder / part, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    network = load_network(folder).network.eval()
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    assert torch.allclose(network(MELS).logits, original(MELS).logits, atol=1e-2)


def test_a_model_whose_weights_do_not_fit_is_refused(whisper: tuple[Path, nn.Module], capfd: pytest.CaptureFixture[str]) -> None:
    """Transformers alone would leave random numbers where tensors are missing or misshapen, and say so in passing."""
    folder, _ = whisper
    good = load_file(folder / "model.safetensors")
    cases = {
        r"'classifier\.bias' is missing \(1 missing, 1 unexpected": {"extra": torch.zeros(1), "classifier.bias": None},
        r"'extra' is unexpected \(0 missing, 1 unexpected": {"extra": torch.zeros(1)},
        r"'classifier\.bias' \(\(5,\), the network has \(3,\)\) is misshapen \(0 missing, 0 unexpected, 1": {
            "classifier.bias": torch.zeros(5)
        },
    }
    for says, change in cases.items():
        state = {name: value for name, value in {**good, **change}.items() if value is not None}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ConfigError, match=says) as caught:
            load_network(folder)
        assert one_line(caught)
    assert capfd.readouterr() == ("", "")


def test_code_of_a_model_folder_is_never_asked_for(whisper: tuple[Path, nn.Module]) -> None:
    """Neither remote classes nor kernels, pickles, quantizers or adapters that a configuration may name."""
    folder, original = whisper
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    write_pickle(folder / "adapter_model.bin", "zip")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    change_json(
        folder / "config.json",
        auto_map={"AutoModelForAudioClassification": "evil.Net"},
        attn_implementation="someone/kernel",
        _attn_implementation="someone/kernel",
        transformers_weights="adapter_model.bin",
        quantization_config={"quant_method": "gptq", "bits": 4},
        dtype="float16",
    )
    loaded = load_network(folder)
    assert loaded.network.config._attn_implementation == "eager"  # type: ignore[union-attr]
    assert torch.allclose(loaded.network.eval()(MELS).logits, original(MELS).logits, atol=1e-5)
    assert "someone" not in loaded.arguments and "evil" not in loaded.arguments
    assert not (folder / "mark").exists()


def test_pickled_models_are_refused_with_a_conversion(whisper: tuple[Path, nn.Module]) -> None:
    folder, _ = whisper
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="do not exist"):
        load_network(folder)
    write_pickle(folder / "pytorch_model.bin", "zip")
    with pytest.raises(ConfigError, match=r"can run any code.*pytorch_model\.bin.*model\.safetensors") as caught:
        load_network(folder)
    assert "package.module" not in one_line(caught)
    assert not (folder / "mark").exists()


@pytest.mark.parametrize("name", ["TheirOwnNet", "os", "WhisperConfig", "__name__"])
def test_only_models_of_transformers_are_built(whisper: tuple[Path, nn.Module], name: str) -> None:
    folder, _ = whisper
    change_json(folder / "config.json", architectures=[name])
    with pytest.raises(ConfigError, match=f"has no model class '{name}'.*never run"):
        load_network(folder)
    with pytest.raises(BundleError, match="has no model class"):
        rebuild_network(external(source="huggingface", entry=name), {}, None, trust_code=False)


def test_configurations_that_cannot_be_built_are_one_line(whisper: tuple[Path, nn.Module]) -> None:
    folder, _ = whisper
    change_json(folder / "config.json", encoder_attention_heads=3)
    with pytest.raises(ConfigError, match="WhisperForAudioClassification failed") as caught:
        load_network(folder)
    assert one_line(caught)
    change_json(folder / "config.json", encoder_attention_heads=2)
    change_json(folder / "preprocessor_config.json", hop_length="short")
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json\.hop_length"):
        load_network(folder)


def test_other_preprocessors_say_nothing(whisper: tuple[Path, nn.Module]) -> None:
    folder, _ = whisper
    extractor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text('{"feature_extractor_type": "ASTFeatureExtractor"}')
    assert (load_network(folder).mel_input, load_network(folder).wave_input) == (None, None)
    (folder / "preprocessor_config.json").unlink()
    assert load_network(folder).mel_input is None
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    assert load_network(folder).mel_input is not None


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        load_network(tmp_path)
    for text, says in (("{}", "names no architectures"), ("[]", "no table"), ("{", "cannot be read")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=says) as caught:
            load_network(tmp_path)
        assert one_line(caught)


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text('{"architectures": ["WhisperForAudioClassification"]}')
    with pytest.raises(ConfigError, match=r"pip install 'duovox\[hf\]'") as caught:
        load_network(tmp_path)
    assert one_line(caught)
    with pytest.raises(BundleError, match=r"duovox\[hf\]"):
        rebuild_network(external(source="huggingface", entry="X"), None, None, trust_code=False)


def test_transformers_is_imported_only_for_its_models() -> None:
    code = "import sys, duovox.classifiers.loading; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
