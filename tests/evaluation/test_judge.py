"""The judge: front end against librosa, networks, one file that is strict and digested, equal scores in any batch."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from duovox import cli
from duovox.contracts import AudioError, BundleError, ConfigError, LabelError, OutputError, ShapeError
from duovox.evaluation import judge as judge_module
from duovox.evaluation.judge import CompactJudge, Judge, ResNeXt29, build_network, judge_mel, packaged_judge
from duovox.sound.audio import read_audio
from duovox.sound.hearing import fit_length

LABELS = ("no", "yes", "maybe")


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge("compact", LABELS, build_network("compact", 3).state_dict())


def some_waves(count: int, samples: int = 16000) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.1, (count, samples)).astype(np.float32)


def librosa_mel(wave: np.ndarray) -> np.ndarray:
    librosa = pytest.importorskip("librosa", reason="librosa (extra test) is absent")
    power = librosa.feature.melspectrogram(y=wave, sr=16000, n_fft=2048, hop_length=512, n_mels=32, power=2.0, pad_mode="reflect")
    return np.asarray(librosa.power_to_db(power, ref=np.max, top_db=80))


def test_front_end_equals_librosas() -> None:
    fade = some_waves(2) * np.geomspace(1, 1e-6, 16000, dtype=np.float32)
    for wave, mel in zip(fade, judge_mel(torch.from_numpy(fade)), strict=True):
        assert mel[0].numpy() == pytest.approx(librosa_mel(wave), abs=2e-3)
    assert float(judge_mel(torch.from_numpy(fade)).min()) == -80


def test_front_end_equals_librosas_on_real_recordings(recordings: Path) -> None:
    paths = [sorted((recordings / "speech_commands" / label).iterdir())[0] for label in ("zero", "three")]
    waves = np.stack([fit_length(read_audio(path, 16000), 16000) for path in paths])
    for wave, mel in zip(waves, judge_mel(torch.from_numpy(waves)), strict=True):
        assert mel[0].numpy() == pytest.approx(librosa_mel(wave), abs=2e-3)


def test_front_end_pads_cuts_and_ignores_loudness_and_neighbours() -> None:
    waves = torch.from_numpy(some_waves(3, 20000))
    assert judge_mel(waves).shape == (3, 1, 32, 32)
    assert torch.equal(judge_mel(waves), judge_mel(waves[:, :16000]))
    short = torch.cat([waves[:, :9000], torch.zeros(3, 7000)], dim=1)
    assert torch.equal(judge_mel(waves[:, :9000]), judge_mel(short))
    assert torch.allclose(judge_mel(waves[1:2] * 0.1), judge_mel(waves)[1:2], atol=1e-3)
    assert torch.equal(judge_mel(torch.zeros(1, 16000)), torch.zeros(1, 1, 32, 32))
    with pytest.raises(ShapeError, match="wave of shape"):
        judge_mel(torch.zeros(16000))


def test_networks_have_the_sizes_they_should() -> None:
    compact, large = CompactJudge(6), ResNeXt29(10)
    assert sum(p.numel() for p in compact.parameters()) < 1_200_000
    assert sum(p.numel() for p in large.parameters()) == pytest.approx(34.43e6, rel=1e-3)  # arXiv 1611.05431, table 7: 34.4 M
    assert {"conv_1_3x3.weight", "stage_3.stage_3_bottleneck_2.bn_expand.bias", "classifier.bias"} <= large.state_dict().keys()


@pytest.mark.parametrize(("network", "features"), [(CompactJudge(5), 128), (ResNeXt29(5), 1024)], ids=["compact", "resnext29"])
def test_features_are_the_input_of_the_last_layer(network: torch.nn.Module, features: int) -> None:
    logits, x = network.eval()(judge_mel(torch.from_numpy(some_waves(2))))
    assert logits.shape == (2, 5) and x.shape == (2, features)
    assert torch.allclose(network.classifier(x), logits)


def test_scores_are_those_of_each_clip_alone(judge: Judge) -> None:
    waves = some_waves(5)
    together, alone = judge.score(waves, batch=3), judge.score(waves[4:])
    assert together.probabilities.shape == (5, 3) and together.features.shape == (5, 128)
    assert together.probabilities.sum(axis=1) == pytest.approx(1)
    assert together.features[4:] == pytest.approx(alone.features, abs=1e-5)


def test_scores_of_integers_and_tensors_are_those_of_floats(judge: Judge) -> None:
    integers = (some_waves(2) * 32768).astype(np.int16)
    floats = integers.astype(np.float32) / 32768
    assert np.array_equal(judge.score(integers).features, judge.score(floats).features)
    assert np.array_equal(judge.score(torch.from_numpy(floats)).features, judge.score(floats).features)


def test_it_refuses_what_is_no_clip(judge: Judge) -> None:
    waves = some_waves(2)
    waves[1, 5] = np.nan
    with pytest.raises(AudioError, match="NaN"):
        judge.score(waves)
    with pytest.raises(ShapeError, match="waves of shape"):
        judge.score(waves[0])
    with pytest.raises(ShapeError, match="waves of shape"):
        judge.score(waves[:0])


def test_it_refuses_labels_it_was_not_trained_on(judge: Judge) -> None:
    judge.require(["yes", "no"])
    with pytest.raises(LabelError, match=r"not trained on three; it knows no, yes, maybe"):
        judge.require(["yes", "three"])


def test_it_refuses_to_be_the_guide(judge: Judge) -> None:
    def wrapped(network: torch.nn.Module) -> torch.nn.Module:
        return torch.nn.ModuleDict({"front": torch.nn.Linear(3, 3), "network": copy.deepcopy(network)})

    for guide in (judge.network, wrapped(judge.network), wrapped(judge.network).half()):
        with pytest.raises(ConfigError, match=r"this judge is the classifier that guides.*--judge"):
            judge.refuse_guide(guide)
    judge.refuse_guide(CompactJudge(3))
    other = wrapped(judge.network)
    other["network"].stem.weight.data[0, 0, 0, 0] += 0.1
    judge.refuse_guide(other)


def test_a_saved_judge_is_the_same_judge(judge: Judge, tmp_path: Path) -> None:
    path = tmp_path / "new" / "judge.safetensors"
    judge.save(path)
    again = Judge.load(path)
    assert again.digest == judge.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert again.labels == LABELS and again.kind == "compact"
    assert np.array_equal(again.score(some_waves(2)).probabilities, judge.score(some_waves(2)).probabilities)
    with pytest.raises(OutputError, match="not overwritten"):
        judge.save(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_another_judge_has_another_digest(judge: Judge) -> None:
    state = {name: tensor.clone() for name, tensor in judge.network.state_dict().items()}
    assert Judge("compact", LABELS, state).digest == judge.digest
    assert Judge("compact", ("a", "b", "c"), state).digest != judge.digest
    state["classifier.bias"][0] += 1e-3
    assert Judge("compact", LABELS, state).digest != judge.digest


def test_foreign_files_are_refused(judge: Judge, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(BundleError, match="cannot read judge"):
        Judge.load(path)
    torch.save(judge.network.state_dict(), path)
    with pytest.raises(BundleError, match=r"not a safetensors file.*pickled"):
        Judge.load(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(BundleError, match="not a judge of format"):
        Judge.load(path)
    judge.save(path, force=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BundleError, match="not a safetensors file"):
        Judge.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.weight"), "lacks tensor norm.weight"),
        (lambda s: s.update(more=torch.zeros(1)), "has the foreign tensor more"),
        (lambda s: s.update({"norm.weight": torch.zeros(3)}), "has another shape for tensor norm.weight"),
    ],
    ids=["missing", "extra", "shape"],
)
def test_loading_is_strict(judge: Judge, change, message: str) -> None:  # type: ignore[no-untyped-def]
    state = dict(judge.network.state_dict())
    change(state)
    with pytest.raises(BundleError, match=message):
        Judge("compact", LABELS, state)


def test_public_resnext_weights_enter_by_name(tmp_path: Path) -> None:
    """Trained on several devices and saved before `num_batches_tracked` existed, as the public files are."""
    state = ResNeXt29(3).state_dict()
    old = {f"module.{name}": tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    save_file(old, tmp_path / "public.safetensors")
    imported = Judge.import_resnext(tmp_path / "public.safetensors", LABELS)
    assert imported.kind == "resnext29" and imported.labels == LABELS
    assert torch.equal(imported.network.state_dict()["classifier.weight"], state["classifier.weight"])
    with pytest.raises(BundleError, match=r"another shape for tensor classifier\.(bias|weight)"):
        Judge.import_resnext(tmp_path / "public.safetensors", ("only", "two"))


def test_the_command_makes_a_judge_of_public_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(ResNeXt29(3).state_dict(), tmp_path / "public.safetensors")
    words = ["judge", str(tmp_path / "public.safetensors"), "--labels", ", ".join(LABELS), "--out", str(tmp_path / "judge.safetensors")]
    assert cli.main(words) == 0
    made = Judge.load(tmp_path / "judge.safetensors")
    assert made.kind == "resnext29" and made.labels == LABELS and made.digest in capsys.readouterr().out
    assert cli.main(words) == 1 and "judge.safetensors" in capsys.readouterr().err
    (tmp_path / "public.pth").write_bytes(b"\x80\x02}q\x00.")
    assert cli.main(["judge", str(tmp_path / "public.pth"), *words[2:]]) == 1
    assert "pickled weights are refused" in capsys.readouterr().err


def test_the_packaged_judge_is_the_one_that_knows_the_labels_and_little_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for name, labels in (("few", ("a", "b")), ("more", ("a", "b", "c"))):
        Judge("compact", labels, build_network("compact", len(labels)).state_dict()).save(tmp_path / f"{name}.safetensors")
    monkeypatch.setattr(judge_module, "JUDGES", tmp_path)
    for labels, name in ((["b"], "few"), (["b", "a"], "few"), (["c", "a"], "more"), (["unheard"], "few")):
        assert packaged_judge(labels) == tmp_path / f"{name}.safetensors"
