"""A teacher's solutions: takes a voice, writes what its guided denoiser says on the way from noise to speech; gives batches to a student.

A folder of shards. Solution i has its own seed and label, whatever the number of solutions, so a folder can be gone on with, and grow;
`solutions.json` says what decides them. A shard is written whole or not at all. Kept is what the denoiser said at each step, in float16:
the path follows from that and the seed (`flow_map.path`), with none of the rounding that large noise would suffer.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from duovox.classifiers.frozen import fingerprint
from duovox.config import Schooling, SolutionConfig, from_dict, to_dict
from duovox.contracts import NO_LABEL, ConfigError, DataError, GenerationError
from duovox.diffusion.flow_map import path, solve
from duovox.diffusion.noise import sigma_grid
from duovox.diffusion.sampling import SeededNoise
from duovox.files import claimed, differences, remove_leftovers, write_tensors, write_whole
from duovox.mels import guided
from duovox.progress import progress
from duovox.text import read_text
from duovox.voice import Duovox

FORMAT = "duovox-solutions-1"
MANIFEST = "solutions.json"
SHARD = 64
"""Solutions in a shard."""

HELD_OUT = 32
"""The last of so many solutions is not trained on."""

CPU = torch.device("cpu")

GOLDEN = (math.sqrt(5) - 1) / 2


def solution_seed(config: SolutionConfig, number: int) -> int:
    return config.first_seed + number


def solution_label(config: SolutionConfig, number: int, labels: int) -> int:
    """The label that solution `number` is of, in turn; `NO_LABEL` for a share `unlabelled` of them, evenly spread."""
    before, after = (math.floor((number + step) * config.unlabelled) for step in (0, 1))
    return NO_LABEL if after > before else (number - before) % labels


def solution_gamma(config: SolutionConfig, number: int) -> float:
    """The strength of its guidance: the one there is, or spread evenly over the range, the same for a number whatever follows."""
    low, high = config.gammas[0], config.gammas[-1]
    return low + (high - low) * math.fmod(number * GOLDEN, 1)


@dataclass(frozen=True)
class Batch:
    """Nodes (B, n + 1, 1, M, T) from the noise to clean · label (B,) or `NO_LABEL` · gamma (B,)."""

    nodes: Tensor
    label: Tensor
    gamma: Tensor


@dataclass(frozen=True)
class Solutions:
    """An opened folder: the first `shards` of its shards. `facts` is what decides them."""

    folder: Path
    facts: dict[str, Any]
    config: SolutionConfig
    shards: int
    opened: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The shards that were read from, by number, as memory maps."""

    def __len__(self) -> int:
        return self.shards * SHARD

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.facts["labels"])

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the solutions."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    @property
    def schooling(self) -> Schooling:
        return Schooling(tuple(self.facts["sigmas"]), self.config.gammas)

    def numbers(self, split: str) -> list[int]:
        """The solutions of `train`, or of `validation`."""
        held_out = split == "validation"
        return [number for number in range(len(self)) if (number % HELD_OUT == HELD_OUT - 1) == held_out]

    def batch(self, numbers: list[int], device: torch.device = CPU) -> Batch:
        """Solutions with their whole paths, computed on `device`. Raises `DataError` for a damaged shard."""
        said = torch.stack([self._said(number) for number in numbers]).to(device).float()[:, :, None]
        sigmas = torch.tensor(self.facts["sigmas"], dtype=torch.float64)
        noise = SeededNoise([solution_seed(self.config, number) for number in numbers], said.shape[2:], said.device)()
        label = torch.tensor([solution_label(self.config, number, len(self.labels)) for number in numbers])
        gamma = torch.tensor([solution_gamma(self.config, number) for number in numbers])
        return Batch(path(said, noise * sigmas[0].item(), sigmas), label.to(device), gamma.to(device))

    def _said(self, number: int) -> Tensor:
        file = shard_file(self.folder, number // SHARD)
        try:
            if number // SHARD not in self.opened:
                shard: Any = safe_open(file, "pt")
                self.opened[number // SHARD] = shard.get_slice("said")
            said: Tensor = self.opened[number // SHARD][number % SHARD]
            return said
        except (OSError, SafetensorError) as error:
            raise DataError(f"{file} cannot be read ({error}); remove it and run `duovox solve` again") from None


def shard_file(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.safetensors"


def facts_of(voice: Duovox, config: SolutionConfig) -> dict[str, Any]:
    """What decides a voice's solutions, as plain values."""
    recipe = voice.config.recipe
    settings = replace(recipe.sample, sampler="dpmpp_2m", steps=config.steps, gamma=config.gammas[0])
    return {
        "format": FORMAT,
        "teacher": voice.config.digest,
        "classifier": fingerprint(voice.bundle.model.classifier.network),
        "labels": list(voice.labels),
        "config": to_dict(config),
        "settings": to_dict(settings),
        "calibration": to_dict(voice.config.calibration),
        "sigmas": sigma_grid(config.steps, recipe.noise, recipe.sample.last_sigma).tolist(),
    }


def make_solutions(
    voice: Duovox, folder: Path, count: int, config: SolutionConfig, batch: int = 32, time_budget: float = math.inf
) -> tuple[int, int]:
    """Solve what is missing of the first `count` solutions (rounded up to whole shards), until `time_budget` seconds are over; how many
    there are then, and how many were asked for.

    Raises `DataError` for a folder of other solutions, `ConfigError` for a batch that does not divide a shard, `GenerationError` where
    one ran off, and `OutputError`.
    """
    if count < 1 or not 1 <= batch <= SHARD or SHARD % batch:
        raise ConfigError(f"the number of solutions must be at least 1, the batch a divisor of {SHARD}, not {count} and {batch}")
    facts, shards, began = facts_of(voice, config), math.ceil(count / SHARD), time.monotonic()
    with claimed(folder, "solutions"):
        _begin(folder, facts, shards)
        missing = [shard for shard in range(shards) if not shard_file(folder, shard).is_file()]
        with progress(len(missing) * SHARD, "solving", "solutions") as advance:
            for done, shard in enumerate(missing):
                if time.monotonic() - began >= time_budget:
                    return (shards - len(missing) + done) * SHARD, shards * SHARD
                said = _solve_shard(voice, config, shard, batch)
                write_tensors(shard_file(folder, shard), {"said": said}, {"duovox": FORMAT})
                advance(SHARD)
    return shards * SHARD, shards * SHARD


def _begin(folder: Path, facts: dict[str, Any], shards: int) -> None:
    """Say in a new folder what it holds; refuse one of other solutions."""
    manifest = folder / MANIFEST
    remove_leftovers([manifest, *(shard_file(folder, shard) for shard in range(shards))])
    if manifest.exists():
        for name, old, new in differences(_read_facts(folder), facts):
            raise DataError(f"{folder} holds solutions with {name} = {old!r}, now it is {new!r}; choose another folder")
    elif any(folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no solutions; choose another folder")
    else:
        write_whole(manifest, (json.dumps(facts, indent=2) + "\n").encode())


def _read_facts(folder: Path) -> dict[str, Any]:
    manifest = folder / MANIFEST
    try:
        facts = json.loads(read_text(manifest))
        known = isinstance(facts, dict) and facts.get("format") == FORMAT
    except (OSError, ValueError) as error:
        raise DataError(f"{manifest} cannot be read ({error}); make the solutions again with `duovox solve`") from None
    if not known:
        raise DataError(f"{manifest} is not of the format {FORMAT}; make the solutions again with `duovox solve`")
    return facts


def open_solutions(folder: Path, shards: int | None = None) -> Solutions:
    """The solutions of a folder: all from the first to the first that is missing, or the first `shards`. Raises `DataError`."""
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder} holds no solutions of a teacher; make them with `duovox solve BUNDLE --out {folder}`")
    facts = _read_facts(folder)
    there = 0
    while shard_file(folder, there).is_file():
        there += 1
    if there < (1 if shards is None else shards):
        raise DataError(f"{folder} holds {there * SHARD} solutions, {(shards or 1) * SHARD} are needed; run `duovox solve` again to go on")
    return Solutions(folder, facts, from_dict(SolutionConfig, facts["config"], "config"), there if shards is None else shards)


@torch.no_grad()
def _solve_shard(voice: Duovox, config: SolutionConfig, shard: int, batch: int) -> Tensor:
    """What the guided denoiser says in every step of one shard: (SHARD, n, M, T) float16."""
    first = shard * SHARD
    parts = [_solve_batch(voice, config, range(start, start + batch)) for start in range(first, first + SHARD, batch)]
    return torch.cat(parts)[:, :, 0].half().cpu()


def _solve_batch(voice: Duovox, config: SolutionConfig, numbers: range) -> Tensor:
    mel, noise, sample = voice.config.recipe.mel, voice.config.recipe.noise, voice.config.recipe.sample
    labels = torch.tensor([solution_label(config, number, len(voice.labels)) for number in numbers], device=voice.device)
    gammas = torch.tensor([solution_gamma(config, number) for number in numbers], device=voice.device)
    denoiser = guided(voice.bundle, labels, sample, torch.where(labels == NO_LABEL, 0.0, gammas))
    seeds, sigmas = [solution_seed(config, number) for number in numbers], sigma_grid(config.steps, noise, sample.last_sigma)
    draw = SeededNoise(seeds, (1, mel.n_mels, mel.frames), voice.device)
    said = solve(denoiser, draw() * sigmas[0].item(), sigmas)
    lost = [seed for seed, own in zip(seeds, said.half(), strict=True) if not own.isfinite().all()]
    if lost:
        raise GenerationError(f"the solution of seed {lost[0]} left the range of finite numbers; use a smaller gamma or more steps")
    return said
