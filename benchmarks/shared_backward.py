"""Guidance that comes free with the taps: d log p(label) is tapped in the place of d logit, and the same backward guides at the noised mel.

    python benchmarks/shared_backward.py FEATURES --n 25

FEATURES is made by `duovox data prepare`. Prints the time of one guided evaluation and the figures of the clips, of a bundle as trained
and with one backward for both. docs/speed.md says what came of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from duovox import Duovox
from duovox.bench.quality import Listeners
from duovox.config import SampleConfig
from duovox.contracts import GuidableDenoiser, Guide
from duovox.devices import choose_autocast
from duovox.diffusion.guidance import ClassifierGuidance, GuidanceSchedule
from duovox.diffusion.sampling import sample
from duovox.diffusion.taps import Taps, recording
from duovox.evaluation.clips import Clips
from duovox.guides import LabelGuide
from duovox.model import Conditioned, ScoreModel


@dataclass(frozen=True)
class SharedBackward:
    """A `GuidableDenoiser`: the model with gradient taps of log p(label), whose gradient at the noised mel is every guide's."""

    model: ScoreModel
    label: Tensor

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.with_gradients(noised, sigma, ())[0]

    def with_gradients(self, noised: Tensor, sigma: Tensor, guides: Sequence[Guide]) -> tuple[Tensor, list[Tensor]]:
        model = self.model
        with torch.enable_grad(), model.arithmetic(noised), recording(model.classifier.network, model.tap_names) as outputs:
            source = noised.detach().requires_grad_()
            logits = model.classifier(source, sigma)
            hidden = [outputs[name] for name in model.tap_names]
            wanted = logits.log_softmax(dim=1).gather(1, self.label[:, None]).sum()
            *tapped, gradient = torch.autograd.grad(wanted, [*hidden, source])
        taps = Taps(tuple(h.detach() for h in hidden), tuple(tapped), logits.detach())
        return model.denoise(taps, noised, sigma), [gradient] * len(guides)


def guided(
    voice: Duovox, words: Sequence[str], shared: bool, settings: SampleConfig
) -> tuple[ClassifierGuidance, GuidableDenoiser, LabelGuide]:
    model, label = voice.bundle.model, torch.tensor([voice.labels.index(word) for word in words])
    denoiser = SharedBackward(model, label) if shared else Conditioned(model, label)
    guide = LabelGuide(model.classifier, label)
    return ClassifierGuidance(denoiser, ((guide, GuidanceSchedule(settings.gamma)),)), denoiser, guide


@torch.no_grad()
def speak(voice: Duovox, n: int, shared: bool, settings: SampleConfig, batch: int = 30) -> Clips:
    """`n` clips of every word, seeds 0, 1, ..."""
    recipe, waves = voice.config.recipe, []
    plan = [(word, seed) for seed in range(n) for word in voice.labels]
    for start in range(0, len(plan), batch):
        words, seeds = zip(*plan[start : start + batch], strict=True)
        denoiser, _, _ = guided(voice, words, shared, settings)
        mels = sample(denoiser, seeds, (1, recipe.mel.n_mels, recipe.mel.frames), settings, recipe.noise)
        waves.append(voice.vocode(voice.log_mels(mels)).numpy())
    return Clips(np.concatenate(waves), tuple(word for word, _ in plan))


@torch.no_grad()
def seconds(voice: Duovox, shared: bool, settings: SampleConfig, batch: int) -> float:
    """Processor time a clip of one guided evaluation, the least of five."""
    _, denoiser, guide = guided(voice, ["three"] * batch, shared, settings)
    noised, sigma, taken = torch.randn(batch, 1, 80, 64), torch.full((batch,), 2.0), []
    for _ in range(6):
        start = time.process_time()
        denoiser.with_gradients(noised, sigma, [guide])
        taken.append(time.process_time() - start)
    return min(taken[1:]) / batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--bundle", default="sc06")
    parser.add_argument("--n", type=int, default=25, help="clips of each word")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    options = parser.parse_args()
    voice = Duovox.from_pretrained(options.bundle)
    settings, listeners = voice.settings(preset="balanced"), Listeners(voice, options.features)
    for shared, name in ((False, "as trained"), (True, "one backward")):
        times = [f"{1000 * seconds(voice, shared, settings, batch):.1f} ms in {batch}" for batch in (1, 16)]
        voice.bundle.model.autocast = choose_autocast(options.precision, torch.device("cpu"))
        print(name, *times, listeners.hear(speak(voice, options.n, shared, settings)), sep="; ", flush=True)
        voice.bundle.model.autocast = None


if __name__ == "__main__":
    main()
