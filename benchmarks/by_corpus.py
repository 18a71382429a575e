"""Accuracy of a classifier, or of a judge, on the test clips of each corpus, each named speaker and each label: a Markdown table.

    python benchmarks/by_corpus.py FEATURES bundle  BUNDLE|NAME
    python benchmarks/by_corpus.py FEATURES run     RUNS/classifier RECIPE
    python benchmarks/by_corpus.py FEATURES judge   JUDGE.safetensors

A classifier is asked at every noise level of the reports, a judge for clean clips. Speakers are rows where a corpus has fewer than 20.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from duovox.config import MelScale, NoiseConfig, read_recipe
from duovox.data import Features, open_features, relabelled
from duovox.data.batches import gather
from duovox.diffusion.noise import add_noise
from duovox.evaluation.judge import Judge
from duovox.networks.base import TappedClassifier
from duovox.networks.layout import to_channels_last
from duovox.runs import load_classifier, read_weights, scale_of
from duovox.sound.mel import scale_mel
from duovox.training.classifier import REPORT_SIGMAS
from duovox.voice import Duovox

BATCH = 128
Heard = NDArray[np.int64]


@torch.no_grad()
def hear_noised(classifier: TappedClassifier, features: Features, scale: MelScale, noise: NoiseConfig, clips: Heard) -> Heard:
    """The label (levels, N) that a classifier hears in each clip at each noise level."""
    heard = []
    for number, start in enumerate(range(0, len(clips), BATCH)):
        clean = scale_mel(gather(features, clips[start : start + BATCH]).log_mel, scale)
        columns = []
        for index, level in enumerate(REPORT_SIGMAS):
            sigma = torch.full((len(clean),), level)
            noised = add_noise(clean, sigma, torch.Generator().manual_seed(number * 1009 + index))
            columns.append(classifier(noised, sigma.clamp(min=noise.sigma_min)).argmax(1).numpy())
        heard.append(np.stack(columns))
    return np.concatenate(heard, axis=1)


def hear_clean(judge: Judge, features: Features, clips: Heard) -> Heard:
    parts = [judge.score(gather(features, clips[start : start + BATCH]).wave).probabilities for start in range(0, len(clips), BATCH)]
    return np.concatenate(parts).argmax(1)[None]


def opened(folder: Path, what: str, given: list[str]) -> tuple[Features, str, tuple[float, ...], Callable[[Heard], Heard]]:
    features = open_features(folder)
    if what == "judge":
        judge = Judge.load(given[0])
        features = relabelled(features, judge.labels)
        return features, f"judge {given[0]}", (0.0,), lambda clips: hear_clean(judge, features, clips)
    if what == "run":
        recipe, (facts, _) = read_recipe(given[1]), read_weights(Path(given[0]))
        network, scale, noise = to_channels_last(load_classifier(Path(given[0]), recipe, features).eval()), scale_of(facts), recipe.noise
        title = f"classifier of {facts['step']} updates"
    else:
        voice = Duovox.from_pretrained(given[0])
        features = relabelled(features, voice.labels)
        network, scale, noise = voice.bundle.model.classifier.network, voice.config.mel_scale, voice.config.recipe.noise
        title = f"classifier of {given[0]}"
    return features, title, REPORT_SIGMAS, lambda clips: hear_noised(network, features, scale, noise, clips)


def main() -> None:
    folder = Path(sys.argv[1])
    features, title, levels, hear = opened(folder, sys.argv[2], sys.argv[3:])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    clips = features.indices("test")
    corpus = np.array([manifest["roots"][manifest["clip_roots"][clip]] for clip in clips])
    speaker, label = np.array([features.speakers[clip] for clip in clips]), features.label[clips]
    heard = hear(clips)
    right = heard == label

    print(f"{title}, {len(clips)} test clips\n\n| clips | n |" + "".join(f" sigma {level:g} |" for level in levels))
    print("|---|---|" + "---|" * len(levels))

    def row(name: str, chosen: NDArray[np.bool_]) -> None:
        print(f"| {name} | {chosen.sum()} |" + "".join(f" {share:.3f} |" for share in right[:, chosen].mean(axis=1)))

    row("all", np.ones(len(clips), bool))
    for root in sorted(set(corpus)):
        row(root, corpus == root)
        own = sorted(set(speaker[corpus == root]))
        for name in own if len(own) < 20 else ():
            row(f"{root}, speaker {name}", (corpus == root) & (speaker == name))
    by_label = {name: right[0][label == number].mean() for number, name in enumerate(features.labels) if (label == number).any()}
    print("\nclean, by label: " + ", ".join(f"{name} {share:.3f}" for name, share in by_label.items()))
    print(f"\nmean over the labels, clean: {np.mean(list(by_label.values())):.4f}")
    wrong = Counter((corpus[i], features.labels[label[i]], features.labels[heard[0, i]]) for i in np.flatnonzero(~right[0]))
    print("\nheard wrongly: " + "; ".join(f"{root}: {was} as {said} {n}" for (root, was, said), n in wrong.most_common(20)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
