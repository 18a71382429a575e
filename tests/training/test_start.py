"""training/start.py: devices and precision, what a training refuses, and which settings decide a part."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tone
from safetensors.torch import save_file

from duovox.assemble import assemble
from duovox.classifiers.frozen import fingerprint
from duovox.config import ExternalConfig, MelConfig, MelInput, Recipe, SeenConfig, TrainConfig, UNetConfig
from duovox.contracts import NO_LABEL, BundleError, DataError, TrainingError
from duovox.data import Features, Statistics, narrowed, open_features, prepare, relabelled, restricted, which_split
from duovox.devices import choose_autocast, choose_device
from duovox.model import build_classifier
from duovox.networks.unet import UNet
from duovox.runs import Part, features_for, load_classifier, read_weights, recipe_of_part, scale_of, scale_of_data
from duovox.sound.audio import write_audio
from duovox.training import jobs
from duovox.training.classifier import ClassifierTraining
from duovox.training.judge import JudgeTraining
from duovox.training.optim import Trainee
from duovox.training.start import start_training
from duovox.training.subnet import SubnetTraining
from duovox.training.vocoder import VocoderTraining

CPU = torch.device("cpu")


@pytest.fixture
def features(tiny_features: Path) -> Features:
    return open_features(tiny_features)


def test_devices_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(TrainingError, match="--device cuda"):
        choose_device("cuda")
    assert choose_autocast("fp32", CPU) is None
    assert choose_autocast("bf16", CPU) == torch.bfloat16
    assert choose_autocast("auto", torch.device("cuda")) == torch.bfloat16
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_autocast("auto", CPU) is None


def test_runs_say_what_they_are(tiny_recipe: Recipe, tiny_runs: Path, features: Features) -> None:
    for part in ("classifier", "subnet"):
        facts, tensors = read_weights(tiny_runs / part)
        assert facts["part"] == part and facts["step"] == 4
        assert facts["labels"] == ["high", "low", "mid"] and facts["clips"] == 18
        assert facts["data"] == features.digest
        assert facts["recipe"] == recipe_of_part(tiny_recipe, part)  # type: ignore[arg-type]
        assert scale_of(facts) == scale_of_data(tiny_recipe, features)
        assert tensors and all(value.isfinite().all() for value in tensors.values())


def test_a_run_keeps_what_its_data_say_and_an_older_one_is_gone_on_with(
    tiny_recipe: Recipe, tiny_runs: Path, tiny_features: Path, tmp_path: Path
) -> None:
    """The same clips, of which the folder now says more: that is told in new runs, and makes no other run of an old one."""
    shutil.copytree(tiny_features, tmp_path / "features")
    manifest = json.loads((tmp_path / "features" / "manifest.json").read_text())
    manifest |= {"speaker_rules": {"unknown": 30}, "languages": {"low": "en"}}
    (tmp_path / "features" / "manifest.json").write_text(json.dumps(manifest))
    start_training("judge", tiny_recipe, tmp_path / "features", tmp_path / "new", device="cpu", precision="fp32")
    facts, _ = read_weights(tmp_path / "new" / "judge")
    assert facts["languages"] == {"low": "en"} and facts["speakers"].startswith("the speakers are unknown")
    old = Path(shutil.copytree(tiny_runs, tmp_path / "old"))
    outcome = start_training("classifier", tiny_recipe, tmp_path / "features", old, resume=True, device="cpu", precision="fp32")
    assert outcome.complete and "languages" not in read_weights(tiny_runs / "classifier")[0]


def test_the_settings_of_other_parts_may_change(tiny_recipe: Recipe) -> None:
    other = dataclasses.replace(tiny_recipe, train_vocoder=TrainConfig(updates=9), train_subnet=TrainConfig(updates=9))
    assert recipe_of_part(other, "classifier") == recipe_of_part(tiny_recipe, "classifier")
    assert recipe_of_part(other, "subnet") != recipe_of_part(tiny_recipe, "subnet")
    assert recipe_of_part(other, "vocoder") != recipe_of_part(tiny_recipe, "vocoder")
    assert recipe_of_part(other, "judge") == recipe_of_part(tiny_recipe, "judge")


def test_a_subnet_needs_its_classifier(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds no trained classifier; run `duovox train classifier`"):
        start_training("subnet", tiny_recipe, tiny_features, tmp_path, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_missing_or_foreign_features(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no feature folder"):
        start_training("classifier", tiny_recipe, tmp_path, tmp_path / "runs", device="cpu")
    with pytest.raises(DataError, match=r"n_mels 80 wanted, 16 stored"):
        start_training("classifier", dataclasses.replace(tiny_recipe, mel=MelConfig()), tiny_features, tmp_path / "runs", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_of_other_settings_labels_or_scale_is_refused(tiny_recipe: Recipe, tiny_runs: Path, features: Features) -> None:
    folder = tiny_runs / "classifier"
    assert load_classifier(folder, tiny_recipe, features)
    other = dataclasses.replace(tiny_recipe, noise=dataclasses.replace(tiny_recipe.noise, sigma_data=0.25))
    with pytest.raises(TrainingError, match=r"noise\.sigma_data = 0\.5, this recipe has 0\.25"):
        load_classifier(folder, other, features)
    with pytest.raises(TrainingError, match="knows the labels high, low, mid, the data has a, b, c"):
        load_classifier(folder, tiny_recipe, dataclasses.replace(features, labels=("a", "b", "c")))
    louder = dataclasses.replace(features, statistics=Statistics(-11.0, 2.0, -5.0, 2.0))
    with pytest.raises(TrainingError, match=r"mel_scale\.scale = .*this data has 4\.0"):
        load_classifier(folder, tiny_recipe, louder)


def test_damaged_weights_are_one_clear_error(tiny_runs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_runs / "classifier", tmp_path / "classifier"))
    content = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(content[:-10])
    with pytest.raises(TrainingError, match=r"weights\.safetensors cannot be read"):
        read_weights(folder)
    save_file({"a": torch.ones(2)}, folder / "weights.safetensors")
    with pytest.raises(TrainingError, match=r"weights\.safetensors cannot be read"):
        read_weights(folder)


def test_data_without_a_validation_split_trains(tiny_recipe: Recipe, tiny_words: Path, tmp_path: Path) -> None:
    words = Path(shutil.copytree(tiny_words, tmp_path / "words"))
    for path in words.rglob("*.wav"):
        if which_split(path.stem) == "validation":
            path.unlink()
    prepare(words, tmp_path / "features", tiny_recipe.mel, progress=False)
    outcome = start_training("classifier", tiny_recipe, tmp_path / "features", tmp_path / "runs", device="cpu")
    assert outcome.complete and outcome.figures == {}


def test_a_classifier_without_updates_stays_as_it_was_drawn(tiny_recipe: Recipe, tiny_features: Path, tmp_path: Path) -> None:
    untrained = dataclasses.replace(tiny_recipe, train_classifier=dataclasses.replace(tiny_recipe.train_classifier, updates=0))
    outcome = start_training("classifier", untrained, tiny_features, tmp_path, device="cpu", precision="fp32")
    assert outcome.complete and outcome.step == 0
    torch.manual_seed(untrained.train_classifier.seed)
    drawn = build_classifier(untrained, 3).state_dict()
    _, tensors = read_weights(tmp_path / "classifier")
    assert all(torch.equal(tensors[name], value) for name, value in drawn.items())


def test_a_subnet_on_another_runs_classifier_with_a_part_of_the_data(
    tiny_recipe: Recipe, tiny_runs: Path, tiny_features: Path, tmp_path: Path
) -> None:
    seen = dataclasses.replace(tiny_recipe, name="tiny", subnet_sees=SeenConfig(share=0.5, labels=("high", "low")))
    start_training("subnet", seen, tiny_features, tmp_path, device="cpu", precision="fp32", on=tiny_runs / "classifier")
    facts, _ = read_weights(tmp_path / "subnet")
    assert facts["clips"] == 6 and facts["labels"] == ["high", "low", "mid"]  # half of six clips each of two labels
    bundle = assemble(tmp_path, seen, on=tiny_runs / "classifier")
    assert bundle.config.labels == ("high", "low", "mid")
    with pytest.raises(TrainingError, match="started with clips = 6, now it is 18"):
        start_training(
            "subnet", tiny_recipe, tiny_features, tmp_path, resume=True, device="cpu", precision="fp32", on=tiny_runs / "classifier"
        )


def test_an_unet_is_trained_like_a_subnet(tiny_recipe: Recipe, tiny_runs: Path, tiny_features: Path, tmp_path: Path) -> None:
    small = UNetConfig(widths=(8, 12), up_widths=(8, 12), blocks=1, bottleneck_blocks=1, embedding=16, group_size=4)
    recipe = dataclasses.replace(tiny_recipe, score_model="unet", unet=small)
    start_training("subnet", recipe, tiny_features, tmp_path, device="cpu", precision="fp32", on=tiny_runs / "classifier")
    bundle = assemble(tmp_path, recipe, on=tiny_runs / "classifier")
    assert isinstance(bundle.model.score_network, UNet)
    assert bundle.model.classifier.unchanged()
    with pytest.raises(BundleError, match="was trained with"):
        assemble(tmp_path, tiny_recipe, on=tiny_runs / "classifier")


def test_a_share_of_the_data_is_a_part_of_every_larger_share(features: Features) -> None:
    half, most = restricted(features, 0.5).indices("train"), restricted(features, 0.9).indices("train")
    assert len(half) == 9 and len(most) == 15 and set(half) < set(most) < set(features.indices("train"))
    assert len(restricted(features, 1e-9).indices("train")) == 3  # one a label
    assert restricted(features).indices("train").tolist() == features.indices("train").tolist()
    alone = restricted(features, labels=("low",))
    assert {features.labels[i] for i in alone.label[alone.indices("train")]} == {"low"}
    assert alone.indices("test").tolist() == features.indices("test").tolist()
    assert (features.split != "unseen").all()  # the features given are left as they are
    with pytest.raises(DataError, match="no label 'loud'"):
        restricted(features, labels=("loud",))


def test_narrowed_features_hold_some_labels_alone_under_a_digest_of_their_own(features: Features) -> None:
    assert narrowed(features, ()) is features
    found = narrowed(features, ("mid", "high"))
    for split in ("train", "validation", "test"):
        known = features.indices(split)
        assert found.indices(split).tolist() == known[features.label[known] != 1].tolist()
    assert found.digest == narrowed(features, ("high", "mid")).digest != features.digest
    assert found.labels == features.labels and found.label is features.label


# words the classifier does not know


def test_unknown_words_have_no_label_or_are_refused(features: Features) -> None:
    for refused in (lambda: relabelled(features, ("low", "new")), lambda: relabelled(features, ("low", "new"), "refused")):
        with pytest.raises(DataError, match=r"the data has the word 'high', which the classifier does not know \(low, new\)"):
            refused()
    found = relabelled(features, ("low", "new"), unknown="unlabelled")
    assert found.labels == ("low", "new") and found.digest == features.digest and found.label.dtype == np.int64
    assert found.label.tolist() == [0 if features.labels[number] == "low" else NO_LABEL for number in features.label]
    assert relabelled(features, ("low",), "unlabelled").label.max() == 0 and NO_LABEL not in features.label


def test_a_share_holds_for_clips_without_label_too(features: Features) -> None:
    """Six train clips of a known word, twelve of unknown ones."""
    other = relabelled(features, ("low", "new"), "unlabelled")
    assert restricted(other).split.tolist() == features.split.tolist()
    half = restricted(other, 0.5)
    kept = half.indices("train")
    assert np.bincount(half.label[kept] + 1).tolist() == [6, 3] and half.indices("test").tolist() == features.indices("test").tolist()
    assert set(kept) < set(restricted(other, 0.75).indices("train"))
    tiniest = restricted(other, 1e-9)
    assert sorted(tiniest.label[tiniest.indices("train")]) == [NO_LABEL, 0], "one of each"
    named = restricted(other, labels=("low",))
    assert set(named.label[named.indices("train")]) == {0} and len(named.indices("train")) == 6
    assert len(restricted(other, labels=("new",)).indices("train")) == 0, "nothing is named but a word that the data lacks"


def test_the_choice_of_labelled_clips_is_the_one_it_always_was(features: Features) -> None:
    """Of each label the first of a permutation drawn from (0, its number), whatever is without label beside it."""
    train = features.split == "train"
    wanted = [
        clip for n in range(3) for clip in np.random.default_rng([0, n]).permutation(np.flatnonzero(train & (features.label == n)))[:2]
    ]
    assert restricted(features, 1 / 3).indices("train").tolist() == sorted(wanted)
    some = dataclasses.replace(features, label=np.where(features.label == 2, NO_LABEL, features.label))
    kept = restricted(some, 1 / 3).indices("train")
    assert kept[some.label[kept] != NO_LABEL].tolist() == sorted(wanted[:4])


@pytest.fixture(scope="module")
def other_words(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of a word the classifier knows and one it does not, much quieter than its own."""
    root = tmp_path_factory.mktemp("other")
    for voice, name in enumerate([name for name in map("{:08x}".format, range(200)) if which_split(name) == "train"][:4]):
        for word, pitch in (("hum", "high"), ("low", "low")):
            write_audio(root / "words" / word / f"{name}_nohash_0.wav", 0.02 * tone(pitch, voice), 16000, parents=True)
    prepare(root / "words", root / "features", tiny_recipe.mel, progress=False)
    return root / "features"


def test_other_data_is_refused_unless_it_is_asked_for(tiny_recipe: Recipe, tiny_runs: Path, other_words: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"classifier knows the labels high, low, mid, the data has hum, low$"):
        start_training("subnet", tiny_recipe, other_words, tmp_path, device="cpu", on=tiny_runs / "classifier")
    assert list(tmp_path.iterdir()) == []


def test_other_data_for_someone_else_s_classifier(tiny_recipe: Recipe, other_words: Path) -> None:
    external = ExternalConfig(labels=("low", "high"), mel_input=MelInput())
    recipe = dataclasses.replace(tiny_recipe, external=external)
    with pytest.raises(DataError, match="the word 'hum', which the classifier does not know"):
        features_for(recipe, other_words)
    found = features_for(dataclasses.replace(recipe, subnet_sees=SeenConfig(other_data=True)), other_words)
    assert set(found.label.tolist()) == {0, NO_LABEL}
    assert set(relabelled(found, ("high", "low"), "unlabelled").label.tolist()) == {1, NO_LABEL}, "no label stays no label"


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_subnet_sees_other_data_as_its_classifier_would(
    tiny_recipe: Recipe, tiny_runs: Path, other_words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    given: list[Features] = []
    trainee = jobs.SubnetTraining
    monkeypatch.setattr(jobs, "SubnetTraining", lambda recipe, features, *rest: given.append(features) or trainee(recipe, features, *rest))
    recipe = dataclasses.replace(tiny_recipe, subnet_sees=SeenConfig(share, other_data=True))
    outcome = start_training("subnet", recipe, other_words, tmp_path, device="cpu", precision="fp32", on=tiny_runs / "classifier")
    (facts, tensors), (own, _) = read_weights(tmp_path / "subnet"), read_weights(tiny_runs / "classifier")
    assert outcome.complete and all(value.isfinite().all() for value in tensors.values())
    assert facts["labels"] == own["labels"] == ["high", "low", "mid"] and facts["clips"] == 8 * share
    assert facts["mel_scale"] == own["mel_scale"] and scale_of(facts) != scale_of_data(recipe, open_features(other_words))
    assert facts["data"] == open_features(other_words).digest != own["data"]
    assert facts["recipe"]["subnet_sees"] == {"share": share, "labels": [], "other_data": True}
    (seen,), words = given, open_features(other_words)
    assert seen.label.tolist() == [{"hum": NO_LABEL, "low": 1}[words.labels[number]] for number in words.label]
    bundle = assemble(tmp_path, recipe, on=tiny_runs / "classifier")
    assert bundle.config.labels == ("high", "low", "mid") and fingerprint(bundle.model.classifier.network) == facts["classifier"]


@pytest.mark.parametrize("part", ["classifier", "subnet", "vocoder", "judge"])
def test_every_part_makes_up_for_rare_labels(part: Part, tiny_recipe: Recipe, features: Features) -> None:
    """Of 18 train clips 15 are called the one label and 3 the other: at full balance both are drawn equally often, by every part."""
    train = features.indices("train")
    label = np.zeros_like(features.label)
    label[train[:3]] = 1
    settings = dataclasses.replace(getattr(tiny_recipe, f"train_{part}"), batch=10, balance=1.0)
    recipe = dataclasses.replace(tiny_recipe, **{f"train_{part}": settings})
    trainee = _trainee(part, recipe, dataclasses.replace(features, label=label))
    drawn = np.concatenate([trainee.batches.indices_at(step) for step in range(3)])  # type: ignore[attr-defined]
    assert np.bincount(label[drawn]).tolist() == [15, 15]


def _trainee(part: Part, recipe: Recipe, features: Features) -> Trainee:
    scale = scale_of_data(recipe, features)
    if part == "classifier":
        return ClassifierTraining(recipe, features, scale, CPU, None)
    if part == "subnet":
        return SubnetTraining(recipe, features, scale, build_classifier(recipe, len(features.labels)), CPU, None)
    return (VocoderTraining if part == "vocoder" else JudgeTraining)(recipe, features, CPU, None)
