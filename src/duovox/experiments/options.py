"""How to carry an experiment out: what the command line takes, `suite` carries out and a page quotes. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from duovox.config import Recipe, read_recipe
from duovox.shipped import DEFAULT_BUNDLE


@dataclass(frozen=True)
class Options:
    """The options of `duovox experiment`; what stands below a field is its help."""

    data: Path
    """Feature folder made by `duovox data prepare`."""
    out: Path
    """Folder for trainings and clips; experiments may share it."""
    results: Path | None = None
    """Folder for the page, its plots, pictures and sounds; <out>/results if left out."""
    recipe: Recipe = field(default_factory=partial(read_recipe, "compact"))
    """Name of a shipped recipe, or a TOML file."""
    judge: Path | None = None
    """Weights of a judge trained on the same labels; the one in the package (zero..five) if left out."""
    classifier: Path | None = None
    """Run folder of a classifier trained with the same recipe and data; one is trained if left out."""
    vocoder: str | None = None
    """A bundle (name, folder, hub id) whose vocoder makes the sound; Griffin-Lim if left out."""
    n: int = 50
    """How many clips of each label in a trial; guides: of each target."""
    seeds: int | None = None
    """How many sets of sampling seeds, for augment seeds of each spotter; 3 (gamma: 1) if left out."""
    updates: int | None = None
    """Updates of every score model, instead of the recipe's."""
    sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] | None = None
    """Which sampler, instead of the recipe's."""
    steps: int | None = None
    """Its steps, instead of the recipe's."""
    words: Path | None = None
    """For shift: feature folder of words that the classifier does not know."""
    noise: Path | None = None
    """For shift and augment: folder of noise recordings; augment's spotters learn in one half of each and are asked in the other."""
    bundle: str = DEFAULT_BUNDLE
    """The voice (name, folder, hub id): for guides that is steered, for augment that speaks; it may have heard all of the data."""
    pitch: str | None = None
    """For guides: a guide whose labels are frequencies, as 196Hz: pitch, which every voice has, or a folder."""
    speaker: str | None = None
    """For guides: a guide that embeds speakers: speaker, which is in the package, or a folder."""
    verifier: Path | None = None
    """For guides: a speaker verifier trained before, <out>/verifier.safetensors; one is trained there if left out."""
    curve_n: int | None = None
    """For guides: how many of the n clips of a target the curves over gamma have; all if left out."""
    sentences: int = 20
    """For guides: how many sentences of five words, with the speaker guide and without."""
    trust_code: bool = False
    """For guides: run the code that the bundle or a guide of someone else's network names or holds."""
    only: str | None = None
    """The name of one system (guides: of one condition): do nothing for the others."""
    time_budget: float = math.inf
    """Stop after this long, as 90s, 20m or 1.5h."""
    quality: str | None = None
    """Also measure quality without a reference: dnsmos, or an ONNX file such as SCOREQ's (extra `quality`)."""
    quality_clips: int = 40
    """On how many clips of each set quality is measured, at most."""
    fid: bool = True
    """Compute FID, where there are more clips than the judge has features."""
    batch: int = 8
    """Clips made at once; changes speed and memory, not the clips."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of trainings and sampling; auto takes bf16 where the hardware is fast at it."""
