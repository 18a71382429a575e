"""Settings of the diffusion: noise levels, temperatures by noise level, sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from duovox.config.fields import check, require


@dataclass(frozen=True)
class NoiseConfig:
    """Noise levels: which SDE, what the network is fed, which sigmas it is trained on.

    `vp` is the paper's variance-preserving SDE with a linear beta; `edm` is Karras et al. 2022 (arXiv 2206.00364).
    """

    kind: Literal["vp", "edm"] = "edm"
    sigma_data: float = 0.5
    sigma_min: float = 0.01
    sigma_max: float = 80.0
    rho: float = 7.0
    log_sigma_mean: float = -1.2
    log_sigma_std: float = 1.4
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check("noise", self, positive="sigma_data sigma_min rho log_sigma_std", not_negative="beta_min")
        require(self.sigma_min < self.sigma_max, f"noise.sigma_min {self.sigma_min} must lie below sigma_max {self.sigma_max}")
        require(self.beta_min < self.beta_max, f"noise.beta_min {self.beta_min} must lie below beta_max {self.beta_max}")


@dataclass(frozen=True)
class Calibration:
    """Temperatures by which a classifier's logits are divided, at noise levels `sigmas` (rising); between them log-linear.

    They were fitted for logits taken where `guide_at` says, and are used for those alone.
    """

    guide_at: Literal["noised", "estimate"] = "noised"
    sigmas: tuple[float, ...] = ()
    temperatures: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check("calibration", self, positive="sigmas temperatures")
        require(len(self.sigmas) == len(self.temperatures), "calibration: sigmas and temperatures must be as many")
        require(list(self.sigmas) == sorted(set(self.sigmas)), f"calibration.sigmas must rise, not {self.sigmas}")


@dataclass(frozen=True)
class SampleConfig:
    """Default settings of generation, stored in the bundle and used by the library, the command line and every server.

    `schedule` is how the strength of guidance runs over the noise levels: `early` is gamma times the noise's share of the noised
    mel's variance (strong at first, gone at the end), `late` gamma times the mel's share.

    `guide_at` says where the classifier is asked for the label: at the `noised` mel (a classifier that knows noise), or at the
    `estimate` of the clean mel, the gradient taken through the denoiser (one that does not).
    """

    sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] = "heun"
    steps: int = 14
    gamma: float = 3.0
    guidance_low: float = 0.0
    guidance_high: float = float("inf")
    schedule: Literal["constant", "early", "late"] = "constant"
    guide_at: Literal["noised", "estimate"] = "noised"

    def __post_init__(self) -> None:
        check("sample", self, positive="steps", not_negative="gamma guidance_low", may_be_infinite="guidance_high")
        low, high = self.guidance_low, self.guidance_high
        require(low < high, f"sample.guidance_low {low} must lie below guidance_high {high}")

    def changed(self, given: Mapping[str, Any]) -> SampleConfig:
        """The same with those of the `given` values that are not None. Raises `ConfigError`."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})
