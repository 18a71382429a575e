"""What a model costs: parameters, and multiply-accumulates of one sampler step, counted by torch's own flop counter.

Takes a `ScoreModel`; gives `Costs` to `duovox inspect` and the results tables. Forward and backward are both
counted; one multiply-accumulate is two of torch's flops. Norms and activations count nothing, as is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from duovox.contracts import Guide, GuideAt
from duovox.guides import LabelGuide
from duovox.model import Conditioned, ScoreModel
from duovox.student import Student


@dataclass(frozen=True)
class Costs:
    """Parameters (without those of a bridge to someone else's classifier), and GMACs: of the classifier's forward, and of one
    network evaluation without and with guidance, bridge included."""

    classifier_parameters: int
    subnet_parameters: int
    classifier_gmacs: float
    unconditional_gmacs: float
    guided_gmacs: float


def parameters(module: nn.Module) -> int:
    """Number of parameters, trained or not."""
    return sum(p.numel() for p in module.parameters())


def gmacs(run: Callable[[], object]) -> float:
    """Billions of multiply-accumulates of everything `run` does, backwards included."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2e9


@torch.no_grad()
def count_costs(model: ScoreModel, guide_at: GuideAt = "noised") -> Costs:
    """Count one clip's evaluation, guided where `guide_at` says."""
    noised = torch.zeros(1, 1, model.mel.n_mels, model.mel.frames)
    sigma = torch.ones(1)
    network = model.classifier.network
    bridge = parameters(network.bridge) if network.bridge is not None else 0
    return Costs(
        parameters(network) - bridge,
        parameters(model.score_network),
        gmacs(lambda: model.classifier(noised, sigma)),
        gmacs(lambda: model(noised, sigma)),
        guided_gmacs(model, guide_at),
    )


@torch.no_grad()
def guided_gmacs(model: ScoreModel, guide_at: GuideAt = "noised", guides: Sequence[Guide] = ()) -> float:
    """Billions of multiply-accumulates of one clip's evaluation, guided towards a label and by further guides."""
    noised = torch.zeros(1, 1, model.mel.n_mels, model.mel.frames)
    sigma, label = torch.ones(1), torch.zeros(1, dtype=torch.long)
    own = LabelGuide(model.classifier, label, guide_at, model.noise.sigma_min)
    return gmacs(lambda: Conditioned(model, label).with_gradients(noised, sigma, [own, *guides]))


@torch.no_grad()
def student_gmacs(student: Student) -> float:
    """GMACs of one evaluation of a student."""
    noised, sigma = torch.zeros(1, 1, student.model.mel.n_mels, student.model.mel.frames), torch.ones(1)
    label = torch.zeros(1, dtype=torch.long)
    return gmacs(lambda: student(noised, sigma, 0 * sigma, label, 3 * sigma))
