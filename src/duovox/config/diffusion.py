"""Settings of the diffusion: noise levels, temperatures by noise level, sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from duovox.config.fields import check, from_dict, require
from duovox.contracts import GuideAt


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

    def lowest(self, last: float) -> float:
        """The noise level at which sampling asks for the last time. Raises `ConfigError` for a `last` that is not below sigma_max."""
        require(last < self.sigma_max, f"sample.last_sigma {last:g} must lie below noise.sigma_max {self.sigma_max:g}")
        return max(last, self.sigma_min)


@dataclass(frozen=True)
class Calibration:
    """Temperatures by which a classifier's logits are divided, at noise levels `sigmas` (rising); between them log-linear.

    They were fitted for logits taken where `guide_at` says, and are used for those alone.
    """

    guide_at: GuideAt = "noised"
    sigmas: tuple[float, ...] = ()
    temperatures: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check("calibration", self, positive="sigmas temperatures")
        require(len(self.sigmas) == len(self.temperatures), "calibration: sigmas and temperatures must be as many")
        require(list(self.sigmas) == sorted(set(self.sigmas)), f"calibration.sigmas must rise, not {self.sigmas}")


SamplerName = Literal["heun", "dpmpp_2m", "euler_maruyama", "student"]
ScheduleName = Literal["constant", "early", "late"]
PresetName = Literal["own", "quality", "balanced", "turbo", "paper"]

_EVERYWHERE: dict[str, Any] = {"guidance_low": 0.0, "guidance_high": math.inf, "schedule": "constant"}

PRESETS: dict[PresetName, dict[str, Any]] = {
    "own": {},
    "quality": {"sampler": "euler_maruyama", "steps": 50, "last_sigma": 0.0, **_EVERYWHERE},
    "balanced": {"sampler": "dpmpp_2m", "steps": 12, "last_sigma": 0.05, **_EVERYWHERE},
    "turbo": {"sampler": "student", "steps": 4, "last_sigma": 0.0, **_EVERYWHERE},
    "paper": {"sampler": "euler_maruyama", "steps": 100, "last_sigma": 0.0, **_EVERYWHERE},
}
"""What each preset sets, by the fields of `SampleConfig`; what it leaves out (gamma, where the classifier is asked) is the bundle's own,
fitted to its classifier. `own` is the bundle's settings as they are; `turbo` needs a student in the bundle.
docs/speed.md has a measured row for each."""


def _setting(default: Any, about: str) -> Any:
    """A field of `SampleConfig`. What it is `about` is said by the command line, the server and the page, which walk the fields."""
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True)
class SampleConfig:
    """Default settings of generation, stored in the bundle. A setting is one field here; library, command line, server, page and
    records take it from this class.

    `schedule` is how the strength of guidance runs over the noise levels: `early` is gamma times the noise's share of the noised
    mel's variance (strong at first, gone at the end), `late` gamma times the mel's share.

    `guide_at` says where the classifier is asked for the label: at the `noised` mel (a classifier that knows noise), or at the
    `estimate` of the clean mel, the gradient taken through the denoiser (one that does not).

    From `last_sigma` Heun and DPM-Solver++ go to the clean mel at once; the other samplers have grids of their own.

    `preset` names the settings that a clip's began with; those given beside it stand in this class like any others, and count.
    """

    preset: PresetName = _setting("own", "Named settings to begin with: quality, balanced, turbo or paper; own is the bundle's.")
    sampler: SamplerName = _setting("heun", "Which sampler; student: the one that the bundle holds, in 1, 2 or 4 steps, as it was taught.")
    steps: int = _setting(14, "Steps of the sampler.")
    last_sigma: float = _setting(
        0.0, "Lowest noise level (sigma) at which the model is asked; a higher one sounds cleaner and smoother, 0 is the lowest it knows."
    )
    gamma: float = _setting(3.0, "Strength of the guidance towards the label; 0 switches it off.")
    guidance_low: float = _setting(0.0, "Lowest noise level (sigma) at which the classifier guides.")
    guidance_high: float = _setting(math.inf, "Highest noise level (sigma) at which the classifier guides.")
    schedule: ScheduleName = _setting(
        "constant", "How the strength of guidance runs: constant, early (fading as the noise goes) or late (growing)."
    )
    guide_at: GuideAt = _setting(
        "noised", "Where the classifier is asked for the label, at the noised mel or at the estimate of the clean one."
    )

    def __post_init__(self) -> None:
        check("sample", self, positive="steps", not_negative="gamma guidance_low last_sigma", may_be_infinite="guidance_high")
        low, high = self.guidance_low, self.guidance_high
        require(low < high, f"sample.guidance_low {low} must lie below guidance_high {high}")

    def changed(self, given: Mapping[str, Any]) -> SampleConfig:
        """The same with those of the `given` values that are not None, by the names of the fields; `interval` is short for the pair
        (guidance_low, guidance_high). A preset comes first, and what is given beside it wins. Raises `ConfigError`."""
        values = {name: value for name, value in given.items() if value is not None}
        preset = values.get("preset", "own")
        require(preset in tuple(PRESETS), f"sample.preset: {preset!r} is none of {', '.join(map(repr, PRESETS))}")
        interval = values.pop("interval", None)
        if interval is not None:
            require(len(interval) == 2, f"sample.interval must be two noise levels, low and high, not {interval!r}")
            values |= {"guidance_low": float(interval[0]), "guidance_high": float(interval[1])}
        return from_dict(SampleConfig, asdict(self) | PRESETS[preset] | values, "sample")
