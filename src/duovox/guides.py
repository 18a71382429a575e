"""Guides: what sampling can be steered by. Each gives log p(wanted | what it looks at), and is differentiated by `guidance`.

Takes classifiers and calibration; gives `Guide`s to `voice`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from duovox.config import Calibration
from duovox.contracts import Classifier, Evaluation, GuideAt


@dataclass(frozen=True, eq=False)
class LabelGuide:
    """log p(label | noised), or log p(label | estimate of the clean mel) by Tweedie's formula, in the eyes of a classifier.

    `label` is one for each item (B,), or shares of each label (B, K): then sum_k share_k log p(k | ...), which is highest where the
    classifier gives each label its share. So equal shares of two labels lead to what lies between them.

    At the estimate the classifier is asked at `clean_sigma`, the smallest noise level it knows. Logits are divided by the temperatures
    of `calibration` where they were fitted for the same place.
    """

    classifier: Classifier
    label: Tensor
    at: GuideAt = "noised"
    clean_sigma: float = 0.01
    calibration: Calibration = field(default_factory=Calibration)

    def log_probability(self, seen: Evaluation) -> Tensor:
        if self.at == "noised":
            logits = seen.logits_of(self.classifier)
        else:
            assert seen.denoised is not None
            logits = self.classifier(seen.denoised, torch.full_like(seen.sigma, self.clean_sigma))
        temperature = temperature_at(self.calibration, seen.sigma, self.at)
        tempered = logits if temperature is None else logits / temperature[:, None]
        logs = torch.log_softmax(tempered, dim=1)
        return (self.label * logs).sum(dim=1) if self.label.ndim == 2 else logs.gather(1, self.label[:, None])[:, 0]


def temperature_at(calibration: Calibration, sigma: Tensor, at: GuideAt) -> Tensor | None:
    """The fitted temperature (B,) at sigma (B,), log-linear between noise levels and held beyond the outermost; None where none was
    fitted for this place."""
    if not calibration.sigmas or calibration.guide_at != at:
        return None
    levels = torch.tensor(calibration.sigmas, dtype=sigma.dtype, device=sigma.device).log()
    values = torch.tensor(calibration.temperatures, dtype=sigma.dtype, device=sigma.device).log()
    if len(levels) == 1:
        return values.exp().expand_as(sigma)
    place = sigma.log().clamp(levels[0], levels[-1])
    right = torch.searchsorted(levels, place).clamp(1, len(levels) - 1)
    share = (place - levels[right - 1]) / (levels[right] - levels[right - 1])
    return torch.lerp(values[right - 1], values[right], share).exp()
