"""Freezing: a classifier that stays in eval mode, takes no gradient into its parameters, and proves that it did not change.

Takes any `Classifier` module; gives it, frozen, to `taps` and `model`.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from duovox.networks.base import TappedClassifier


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of every tensor of the module's state; any changed bit changes it."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FrozenClassifier(nn.Module):
    """A classifier locked in eval mode with no parameter gradients. `train()` on it, or on what holds it, changes nothing."""

    def __init__(self, classifier: TappedClassifier) -> None:
        super().__init__()
        self.network: TappedClassifier = classifier
        self.fingerprint = ""
        self.freeze()

    def freeze(self) -> None:
        """Lock the network as it is now; call it again after weights were loaded into it."""
        self.network.eval().requires_grad_(False)
        self.fingerprint = fingerprint(self.network)

    def train(self, mode: bool = True) -> FrozenClassifier:
        return self

    def requires_grad_(self, requires_grad: bool = True) -> FrozenClassifier:
        return self

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        logits: Tensor = self.network(noised, sigma)
        return logits

    def unchanged(self) -> bool:
        """Whether the state is still bit-identical to the one that was frozen."""
        return fingerprint(self.network) == self.fingerprint
