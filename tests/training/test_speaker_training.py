"""training/speaker.py: known answers for its parts, that it learns, and the guide that comes of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.config import MelScale, Recipe, SpeakerConfig, TrainConfig
from duovox.contracts import ConfigError, DataError, GuideError, LabelError, TrainingError
from duovox.data import Features, open_features
from duovox.guide_folder import read_guide
from duovox.model import build_speaker
from duovox.repurposing import make_speaker_guide
from duovox.repurposing.guide_making import one_of_each
from duovox.runs import SPEAKER_DIMENSIONS, read_weights
from duovox.sound.mel import fit_scale
from duovox.training.augment import COLOUR_POINTS, NEPERS_PER_DB, random_colour
from duovox.training.optim import update
from duovox.training.schedule import step_generator
from duovox.training.shares import Part
from duovox.training.speaker import CLIPS, SpeakerTraining, clips_by_speaker, draw_speakers, likeness
from duovox.training.start import start_training

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def by_tone(tiny_features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature folder whose speakers are the three tones; nobody is held out for validation."""
    folder = tmp_path_factory.mktemp("by_tone") / "features"
    shutil.copytree(tiny_features, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["speakers"] = [f"speaker {label}" for label in manifest["clip_labels"]]
    manifest["splits"] = ["test" if split == "validation" else split for split in manifest["splits"]]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def features(by_tone: Path) -> Features:
    return open_features(by_tone)


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Recipe) -> Recipe:
    return dataclasses.replace(tiny_recipe, train_speaker=TrainConfig(updates=25, batch=12, rate=5e-3, warmup=2, ema_decay=0.5))


def scale_of(features: Features) -> MelScale:
    s = features.statistics
    return fit_scale(s.low, s.high, s.mean, s.std, "standard")


@pytest.fixture(scope="module")
def run(by_tone: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("speaker_runs")
    start_training("speaker", recipe, by_tone, out, device="cpu", precision="fp32")
    return out / "speaker"


def test_likeness_leaves_the_clip_itself_out_of_its_own_speaker() -> None:
    embeddings = torch.tensor([[[2.0, 0.0], [0.0, 3.0]], [[-1.0, 0.0], [-5.0, 0.0]]])  # two clips each of two speakers
    half = 0.5**0.5
    expected = torch.tensor([[0.0, -1.0], [0.0, 0.0], [-half, 1.0], [-half, 1.0]])
    torch.testing.assert_close(likeness(embeddings), expected)


def test_a_batch_has_groups_of_one_speaker_each(features: Features) -> None:
    speakers = clips_by_speaker(features, "train")
    assert [len(own) for own in speakers] == [6, 6, 6]
    drawn = draw_speakers(speakers, 2, np.random.default_rng(0))
    groups = drawn.reshape(-1, CLIPS)
    assert len(set(drawn)) == 2 * CLIPS and len(groups) == 2
    assert all(len({features.speakers[clip] for clip in group}) == 1 for group in groups)
    assert len({features.speakers[group[0]] for group in groups}) == 2
    assert len(draw_speakers(speakers, 50, np.random.default_rng(0))) == 3 * CLIPS


def test_a_step_draws_the_same_every_time(features: Features, recipe: Recipe) -> None:
    trainee = SpeakerTraining(recipe, features, scale_of(features), CPU, None)
    first, again, other = (trainee.draw(step, step_generator(0, step, CPU))["noised"] for step in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_colour_is_the_same_at_all_times_and_another_for_each_clip() -> None:
    log_mel = torch.randn(5, 1, 16, 7)
    curve = random_colour(log_mel, 20.0, torch.Generator().manual_seed(0)) - log_mel
    torch.testing.assert_close(curve, curve[..., :1].expand_as(curve))
    assert float(curve.abs().max()) <= 20 * NEPERS_PER_DB + 1e-5 and float(curve.std(dim=0).min()) > 0.1
    bends = (curve[:, 0, 2:, 0] - 2 * curve[:, 0, 1:-1, 0] + curve[:, 0, :-2, 0]).abs() > 1e-5
    assert bool((bends.sum(dim=1) <= COLOUR_POINTS - 2).all()), "straight between its points, which here are bands"


def test_clips_are_changed_as_the_recipe_asks(features: Features, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrainConfig] = []
    monkeypatch.setattr("duovox.training.speaker.altered", lambda log_mel, train, _: asked.append(train) or log_mel)
    SpeakerTraining(recipe, features, scale_of(features), CPU, None).draw(0, step_generator(0, 0, CPU))
    assert asked == [recipe.train_speaker]


def test_it_learns_whose_clips_are_whose(features: Features, recipe: Recipe) -> None:
    """Speakers whose clips have nothing in common but the name, so that nothing can be known before."""
    mixed = dataclasses.replace(features, speakers=tuple(f"speaker {number % 3}" for number in range(len(features.speakers))))
    trainee = SpeakerTraining(recipe, mixed, scale_of(features), CPU, None)
    losses = [update(trainee, 0, step_generator(0, 0, CPU))["loss"] for _ in range(30)]
    assert losses[0] > 1.0 and losses[-1] < 0.7 * losses[0]


def test_what_cannot_be_compared_is_refused(tiny_features: Path, features: Features, recipe: Recipe) -> None:
    words = open_features(tiny_features)  # three clips a speaker
    with pytest.raises(DataError, match=r"the train split has 0 speakers with 4 clips or more, at least 2 are needed"):
        SpeakerTraining(recipe, words, scale_of(words), CPU, None)
    trainee = SpeakerTraining(recipe, features, scale_of(features), CPU, None)
    with pytest.raises(TrainingError, match=r"the speaker network is trained by one process"):
        trainee.loss(0, trainee.draw(0, step_generator(0, 0, CPU)), Part(0.5))


def test_the_share_of_unheard_speakers_that_are_known_again(features: Features, recipe: Recipe) -> None:
    halves = dataclasses.replace(features, split=np.array(["train", "validation"] * 15))
    trainee = SpeakerTraining(recipe, halves, scale_of(features), CPU, None)
    figures = trainee.validate()
    assert (
        figures["speakers"] == 3 and next(iter(figures)) == "accuracy_at_0" and all(0 <= figures[name] <= 1 for name in list(figures)[:3])
    )


def test_a_run_becomes_a_guide_towards_any_sound(run: Path, features: Features, tiny_bundle: Bundle, tmp_path: Path) -> None:
    assert read_weights(run)[0]["part"] == "speaker"
    background = one_of_each(features)
    assert len(background) == 3 and len(one_of_each(features, most=2)) == 2
    guide = make_speaker_guide(run, background, name="speaker")
    assert guide.labels == () and guide.anchors is not None and len(guide.anchors) == 3
    again = read_guide(guide.write(tmp_path / "speaker"))
    assert again.digest == guide.digest
    voice = Duovox(tiny_bundle)
    wave = features.waves[0].astype(np.float32) / 2**15
    steered = voice.guide(again, like=wave, gamma=30, cap=3)
    assert steered.record.target == {"like": 1.0} and steered.record.digest != again.digest
    plain, near = (voice.generate("low", 2, guides=some, keep_faulty=True) for some in ([], [steered]))
    assert np.abs(plain[0].log_mel - near[0].log_mel).max() > 0.01
    with pytest.raises(LabelError, match=r"say what sound the guide speaker is to be near to"):
        voice.guide(again)
    with pytest.raises(GuideError, match=r"needs background clips"):
        make_speaker_guide(run, [])


def test_several_encoders_learn_side_by_side_and_are_believed_alike(
    by_tone: Path, features: Features, recipe: Recipe, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    two = dataclasses.replace(recipe, speaker=SpeakerConfig(2))
    start_training("speaker", two, by_tone, tmp_path / "runs", device="cpu", precision="fp32")
    guide = read_guide(make_speaker_guide(tmp_path / "runs" / "speaker", one_of_each(features)).write(tmp_path / "who"))
    assert guide.anchors is not None and guide.anchors.shape == (3, 2 * SPEAKER_DIMENSIONS)
    mels, sigma = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.5)
    encoders = list(guide.network.networks)  # type: ignore[arg-type]
    each = [torch.nn.functional.normalize(encoder(mels, sigma), dim=1) for encoder in encoders]
    whole = torch.nn.functional.normalize(guide.network(mels, sigma), dim=1)
    torch.testing.assert_close(whole @ whole.T, (each[0] @ each[0].T + each[1] @ each[1].T) / 2)
    assert not torch.allclose(each[0] @ each[0].T, each[1] @ each[1].T, atol=1e-2), "they began with other weights"
    voice = Duovox(tiny_bundle)
    steered = voice.guide(guide, like=features.waves[0].astype(np.float32) / 2**15, gamma=30, cap=3)
    plain, near = (voice.generate("low", 2, guides=some, keep_faulty=True) for some in ([], [steered]))
    assert np.abs(plain[0].log_mel - near[0].log_mel).max() > 0.01


def test_each_encoder_has_a_loss_of_its_own(features: Features, recipe: Recipe) -> None:
    def loss_of(encoders: int) -> tuple[SpeakerTraining, float]:
        trainee = SpeakerTraining(dataclasses.replace(recipe, speaker=SpeakerConfig(encoders)), features, scale_of(features), CPU, None)
        return trainee, float(trainee.loss(0, trainee.draw(0, step_generator(0, 0, CPU)), Part()).total.detach())

    two, both = loss_of(2)
    one, _ = loss_of(1)
    drawn, alone = two.draw(0, step_generator(0, 0, CPU)), list[float]()
    for encoder in two.network.networks:  # type: ignore[union-attr]
        one.network.load_state_dict(encoder.state_dict())
        alone.append(float(one.loss(0, drawn, Part()).total.detach()))
    assert both == pytest.approx(sum(alone) / 2, abs=1e-4) and abs(alone[0] - alone[1]) > 1e-3


def test_encoders_share_the_embedding_evenly(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="embeddings of 64 numbers cannot be by 3 networks"):
        build_speaker(dataclasses.replace(recipe, speaker=SpeakerConfig(2, 1)), 64)
    with pytest.raises(ConfigError, match=r"speaker.encoders and speaker.time_delays must not both be 0"):
        SpeakerConfig(0)
    with pytest.raises(ConfigError, match=r"speaker.encoders must not be negative, not -1"):
        SpeakerConfig(-1, 2)


@pytest.mark.usefixtures("anything_is_speech")
def test_the_commands_make_the_guide_and_take_a_recording_for_its_target(
    run: Path, by_tone: Path, bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["guide", str(run), "--background", str(by_tone), "--out", "who", "--bundle", str(bundle_folder)]
    assert main(words) == 0, capsys.readouterr().err
    assert "who takes any sound for a target" in capsys.readouterr().out
    quick = ["--bundle", str(bundle_folder), "--steps", "3"]
    assert main(["generate", "low", "--out", "ann.wav", *quick]) == 0
    assert main(["generate", "mid", "--out", "like.wav", "--guide", "who-ann.wav:5", *quick]) == 0, capsys.readouterr().err
    (record,) = json.loads((tmp_path / "like.json").read_text())["guides"]
    assert record["name"] == "who" and record["target"] == {"ann": 1.0}
    capsys.readouterr()
    assert main(["generate", "mid", "--out", "b.wav", "--guide", "who-absent.wav:5", *quick]) == 1
    assert "the guide who cannot be near to absent.wav: there is no such file" in capsys.readouterr().err
    named = ["guide", "who", "--out", "voices", "--bundle", str(bundle_folder)]
    assert main(named) == 1
    assert "who is a guide already; give --references" in capsys.readouterr().err
    assert main([*named, "--references", "ann.wav", "--gamma", "7"]) == 0, capsys.readouterr().err
    made, source = read_guide(tmp_path / "voices"), read_guide(tmp_path / "who")
    assert made.labels == ("ann",) and (made.config.strength.gamma, source.config.strength.gamma) == (7.0, 10.0)
    assert made.anchors is not None and source.anchors is not None and torch.equal(made.anchors[1:], source.anchors)
    assert main(["generate", "mid", "--out", "named.wav", "--guide", "voices-ann:5", *quick]) == 0
    assert (tmp_path / "named.wav").read_bytes() == (tmp_path / "like.wav").read_bytes(), "a reference by name is the reference"
    capsys.readouterr()
    assert main([*words, "--force", "--takes", "wave"]) == 1
    assert "is a network of ours and knows its own; leave --takes out" in capsys.readouterr().err
