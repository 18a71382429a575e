"""Recordings as a voice would have said them: takes a feature folder and a voice, gives one whose log-mels are the voice's own.

A clip's log-mel is noised to a level sigma and sampled back from there, guided towards its label. What is coarser than sigma stays as
it was recorded, in its place; what is finer, the harmonics above all, is the voice's. The wave stays the recording. A vocoder trained on
such pairs meets the mels that it will meet, and hears what they should have sounded like.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duovox.config import to_dict
from duovox.contracts import NO_LABEL, ConfigError, DataError
from duovox.data.changing import Changed, write_changed
from duovox.data.decoding import check_place
from duovox.data.features import FORMAT, Features, Manifest, open_features, read_manifest, relabelled
from duovox.data.splits import SPLITS
from duovox.diffusion.noise import sigma_grid
from duovox.diffusion.sampler import dpmpp_2m
from duovox.diffusion.sampling import SeededNoise
from duovox.mels import guided
from duovox.progress import progress
from duovox.sound.mel import scale_mel
from duovox.voice import Duovox

BATCH = 32


def respeak(voice: Duovox, source: str | Path, out: str | Path, sigma: float = 0.5, clips: int | None = None) -> Manifest:
    """Write the feature folder `out`: the clips of `source` as the voice says them again from noise of level `sigma`, unless it is there
    already. `clips` takes that many train clips, evenly spread, and as large a share of the others.

    Raises `DataError` for features that the voice does not fit, `ConfigError` for an impossible sigma or number, and `OutputError` where
    `out` is something else or cannot be written.
    """
    source, out = Path(source), Path(out)
    check_place(source, out)
    recipe = voice.config.recipe
    features = relabelled(open_features(source, recipe.mel), voice.labels, "unlabelled")
    if not recipe.noise.sigma_min < sigma < recipe.noise.sigma_max:
        raise ConfigError(f"sigma must lie between {recipe.noise.sigma_min:g} and {recipe.noise.sigma_max:g}, not {sigma:g}")
    chosen = _chosen(features, clips)
    facts = [features.digest, voice.config.digest, to_dict(recipe.sample), sigma, len(chosen)]
    inputs = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    note = f"log-mels said again by the voice {voice.config.digest[:12]} from noise of level {sigma:g}"
    before = read_manifest(source)
    manifest = _narrowed(replace(before, format=FORMAT, inputs=inputs, notes=(*before.notes, note), respoken=True), chosen)
    return write_changed(out, manifest, _changed(features, chosen, _said_again(voice, features, chosen, sigma)))


def _chosen(features: Features, clips: int | None) -> NDArray[np.int64]:
    """Places of the clips to take, in order."""
    train = len(features.indices("train"))
    if clips is not None and not clips > 0:
        raise ConfigError(f"the number of clips must be at least 1, not {clips}")
    if train == 0:
        raise DataError("the features have no clips to train on")
    share = 1.0 if clips is None else min(1.0, clips / train)
    parts = [features.indices(split) for split in SPLITS]
    return np.sort(np.concatenate([part[np.unique(np.linspace(0, len(part) - 1, round(share * len(part))).astype(int))] for part in parts]))


def _narrowed(manifest: Manifest, chosen: NDArray[np.int64]) -> Manifest:
    """The manifest of some of its clips."""
    labels, splits = tuple(manifest.clip_labels[i] for i in chosen), tuple(manifest.splits[i] for i in chosen)
    counts: dict[str, dict[str, int]] = {label: dict.fromkeys(SPLITS, 0) for label in manifest.labels}
    for label, split in zip(labels, splits, strict=True):
        counts[manifest.labels[label]][split] += 1
    return replace(
        manifest,
        counts=counts,
        clip_labels=labels,
        splits=splits,
        stems=tuple(manifest.stems[i] for i in chosen),
        speakers=tuple(manifest.speakers[i] for i in chosen),
        clip_roots=tuple(manifest.clip_roots[i] for i in chosen) if manifest.clip_roots else (),
    )


@torch.no_grad()
def _said_again(voice: Duovox, features: Features, chosen: NDArray[np.int64], sigma: float) -> Iterator[NDArray[np.float16]]:
    """Chunks (n, M, T) of the log-mels of the chosen clips, the noise of each drawn by its place."""
    recipe, scale = voice.config.recipe, voice.config.mel_scale
    grid = sigma_grid(recipe.sample.steps, recipe.noise, recipe.sample.last_sigma)
    levels = torch.cat([torch.tensor([sigma], dtype=grid.dtype), grid[grid < sigma]])
    for start in range(0, len(chosen), BATCH):
        places = chosen[start : start + BATCH]
        clean = scale_mel(torch.from_numpy(features.log_mels[places]).float()[:, None].to(voice.device), scale)
        noise = SeededNoise([int(place) for place in places], tuple(clean.shape[1:]), voice.device)()
        number = torch.from_numpy(features.label[places]).to(voice.device)
        gamma = torch.where(number == NO_LABEL, 0.0, torch.full(number.shape, recipe.sample.gamma, device=voice.device))
        said: Tensor = dpmpp_2m(guided(voice.bundle, number, recipe.sample, gamma), clean + sigma * noise, levels)
        yield voice.log_mels(said)[:, 0].half().cpu().numpy()


def _changed(features: Features, chosen: NDArray[np.int64], chunks: Iterator[NDArray[np.float16]]) -> Iterator[Changed]:
    """Chunks of log-mels, of the chosen clips in order, with their waves."""
    with progress(len(chosen), "saying again", "clips") as advance:
        for log_mels in chunks:
            places, chosen = chosen[: len(log_mels)], chosen[len(log_mels) :]
            yield Changed(features.waves[places], log_mels, features.split[places] == "train", log_mels)
            advance(len(log_mels))
