"""mels.py: which noise of a seed a clip begins with, by hand; the samplers themselves are tested with `voice` and `diffusion`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.config import SampleConfig
from duovox.contracts import ConfigError, GenerationError
from duovox.diffusion.sampling import SeededNoise
from duovox.mels import SKETCH_STEPS, best_starts, liking, sample_mels, sketches
from duovox.steering import ScheduledGuide

SETTINGS = SampleConfig(sampler="dpmpp_2m", steps=3, gamma=0.4)
SEEDS = [3, 8, 21]


def treble(log_mel: Tensor) -> Tensor:
    """How loud the upper half of the bands is."""
    return log_mel[:, 0, 8:].mean(dim=(1, 2))


def chooser(voice: Duovox, candidates: int, gamma: float = 1e9) -> ScheduledGuide:
    """A guide that likes treble and, at noise levels that no sampler asks at, does nothing but choose."""
    return voice.function_guide(treble, gamma=gamma, interval=(1e-9, 1e-8), candidates=candidates)


def numbers(count: int, label: int = 1) -> Tensor:
    return torch.full((count,), label)


def test_a_start_counts_the_noises_of_its_seed() -> None:
    draw = SeededNoise([5], (2, 3), torch.device("cpu"))
    noises = [draw() for _ in range(4)]
    later = SeededNoise([5, 5, 5], (2, 3), torch.device("cpu"), starts=[0, 3, 1])
    assert torch.equal(later(), torch.cat([noises[0], noises[3], noises[1]]))
    assert torch.equal(later()[0], noises[1][0]), "what samplers draw on the way follows"


def test_the_best_sketch_is_begun_from(tiny_bundle: Bundle) -> None:
    voice = Duovox(tiny_bundle)
    guide = chooser(voice, 7)
    found = best_starts(voice.bundle, numbers(3), SEEDS, SETTINGS, [guide])
    by_hand = []
    for seed in SEEDS:
        rough = SampleConfig(sampler="dpmpp_2m", steps=SKETCH_STEPS, gamma=0.4)
        mels = sample_mels(voice.bundle, numbers(7), [seed] * 7, rough, starts=range(7))
        by_hand.append(int(mels[:, 0, 8:].mean(dim=(1, 2)).argmax()))
    assert found == by_hand and len(set(found)) > 1
    expected = sample_mels(voice.bundle, numbers(3), SEEDS, SETTINGS, starts=found)
    assert torch.equal(sample_mels(voice.bundle, numbers(3), SEEDS, SETTINGS, guides=[guide]), expected)


def test_what_shares_a_seed_may_share_the_noise_that_suits_all(tiny_bundle: Bundle) -> None:
    voice, seeds = Duovox(tiny_bundle), [3, 8, 3]
    labels = torch.tensor([0, 1, 2])
    firm = SampleConfig(sampler="dpmpp_2m", steps=3, gamma=30.0)
    found = best_starts(voice.bundle, labels, seeds, firm, [chooser(voice, 7)], shared=True)
    liked = []
    for label, seed in zip(labels, seeds, strict=True):
        rough = SampleConfig(sampler="dpmpp_2m", steps=SKETCH_STEPS, gamma=30.0)
        mels = sample_mels(voice.bundle, label.expand(7), [seed] * 7, rough, starts=range(7))
        liked.append(mels[:, 0, 8:].mean(dim=(1, 2)))
    together, alone = int((liked[0] + liked[2]).argmax()), int(liked[1].argmax())
    assert found == [together, alone, together]
    assert together != int(liked[0].argmax()) or together != int(liked[2].argmax()), "else this tells nothing"


@pytest.mark.parametrize("starts", [[0], [0, -1], []])
def test_starts_that_cannot_be(tiny_bundle: Bundle, starts: list[int]) -> None:
    with pytest.raises(GenerationError, match=r"starts must be the number of a noise, 0 or more, for each of 2 clips, not \["):
        Duovox(tiny_bundle).generate_batch([("low", 1), ("high", 1)], starts=starts)


def test_a_student_sketches_single_labels_where_there_is_one(student_bundle: Bundle) -> None:
    quick = SampleConfig(sampler="student", steps=1, gamma=0.5)
    found = sketches(student_bundle, numbers(2), [4, 4], SampleConfig(gamma=3.0), (0, 6))
    assert torch.equal(found, sample_mels(student_bundle, numbers(2), [4, 4], quick, starts=(0, 6))), "as near to gamma 3 as it was taught"
    shares = torch.tensor([[0.5, 0.5, 0.0]]).expand(2, 3)
    rough = SampleConfig(sampler="dpmpp_2m", steps=SKETCH_STEPS, gamma=3.0)
    found = sketches(student_bundle, shares, [4, 4], SampleConfig(gamma=3.0), (0, 6))
    assert torch.equal(found, sample_mels(student_bundle, shares, [4, 4], rough, starts=(0, 6)))


def test_one_candidate_changes_nothing_and_is_not_sketched(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = Duovox(tiny_bundle)
    monkeypatch.setattr("duovox.mels.sketches", lambda *_: pytest.fail("sketched"))
    assert best_starts(voice.bundle, numbers(3), SEEDS, SETTINGS, [chooser(voice, 1)]) == []
    plain, chosen = (voice.sample_mels("mid", SEEDS, SETTINGS, guides=guides) for guides in ((), (chooser(voice, 1),)))
    torch.testing.assert_close(chosen, plain, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("anything_is_speech")
def test_a_clip_is_a_function_of_its_seed_whatever_the_batch_and_says_how_it_was_chosen(tiny_bundle: Bundle) -> None:
    voice = Duovox(tiny_bundle)
    guide = chooser(voice, 5, gamma=3.0)
    whole = voice.generate("low", 4, guides=[guide])
    alone = [voice.generate("low", seed=seed, guides=[guide])[0] for seed in range(4)]
    assert all(np.allclose(one.log_mel, other.log_mel, rtol=0, atol=2e-4) for one, other in zip(whole, alone, strict=True))
    assert whole[0].guides[0].strength.candidates == 5
    unlabelled = voice.generate(None, 2, guides=[guide])
    assert len(unlabelled) == 2


def test_what_says_the_word_better_is_liked_more(tiny_bundle: Bundle) -> None:
    voice = Duovox(tiny_bundle)
    settings = SampleConfig(sampler="dpmpp_2m", steps=3, gamma=1e6)
    found = best_starts(voice.bundle, numbers(3), SEEDS, settings, [chooser(voice, 7, gamma=1e-6)])
    for seed, start in zip(SEEDS, found, strict=True):
        mels = sketches(voice.bundle, numbers(7), [seed] * 7, settings, range(7))
        heard = voice.bundle.model.classifier(mels, torch.full((7,), voice.config.recipe.noise.sigma_min)).log_softmax(1)[:, 1]
        assert start == int(heard.argmax())


def test_guides_choose_together_by_their_strengths_and_never_what_is_no_number(tiny_bundle: Bundle) -> None:
    voice = Duovox(tiny_bundle)
    mels = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    pairs = [(2.0, voice.function_guide(treble).guide), (0.5, voice.function_guide(lambda mel: -treble(mel), "down").guide)]
    scale = voice.config.mel_scale.scale
    shifted = liking(mels, pairs, 0.01) - 1.5 * voice.config.mel_scale.shift
    torch.testing.assert_close(shifted, 1.5 * scale * mels[:, 0, 8:].mean(dim=(1, 2)))
    mels[2] = torch.nan
    assert liking(mels, pairs[:1], 0.01)[2] == -torch.inf


@pytest.mark.parametrize("candidates", [0, -3, 65])
def test_numbers_of_candidates_that_cannot_be(tiny_bundle: Bundle, candidates: int) -> None:
    with pytest.raises(ConfigError, match=rf"guide.candidates must lie between 1 \(no choice\) and 64, not {candidates}"):
        chooser(Duovox(tiny_bundle), candidates)
