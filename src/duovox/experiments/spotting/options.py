"""What the experiment augment tries: its own options, beside those that all experiments share. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from duovox.contracts import ConfigError
from duovox.experiments.options import Options

_SHARED = ("data", "out", "results", "recipe", "vocoder", "bundle", "seeds", "noise", "time_budget", "batch", "device", "precision")
"""The common options that mean something here."""


@dataclass(frozen=True)
class Spotting:
    """The options of `duovox experiment augment`; what stands below a field is its help. Raises `ConfigError` for impossible values."""

    commands: tuple[str, ...] = ("down", "go", "left", "no", "right", "stop", "up", "yes")
    """For augment: the words that the spotters tell apart; the data's other words are there to be told from them."""
    real: tuple[int, ...] = (10, 30, 100, 480)
    """For augment: how many real clips of each word; as many as there are, where there are fewer."""
    generated: tuple[int, ...] = (100, 500)
    """For augment: how many generated clips of each word."""
    between: int = 50
    """For augment: how many generated clips between each word and the others of the bundle, as hard negatives; 0 for none."""
    own: tuple[int, ...] = (10, 100)
    """For augment: of these numbers of real clips a generator of its own is trained, on them alone; 0 for none."""
    own_budget: float = 3600.0
    """For augment: how long each of these is trained, a third of it the classifier."""
    own_init: str | None = None
    """For augment: a bundle of other words that its weights start from; from nothing if left out."""
    espeak: bool = True
    """For augment: the same with clips of the rule-based synthesiser espeak-ng, where it is installed."""
    spotter_updates: int = 600
    """For augment: updates of each spotter, of batch 32."""
    workers: int | None = None
    """For augment: processes that generate; one for each usable core if left out."""

    def __post_init__(self) -> None:
        if len(set(self.commands)) < 2:
            raise ConfigError(f"--commands needs two words at least, to tell them apart, not {' '.join(self.commands) or 'none'}")
        for name in ("real", "generated"):
            numbers = getattr(self, name)
            if not numbers or min(numbers) < 1:
                raise ConfigError(f"--{name} must be numbers of at least 1, not {' '.join(map(str, numbers)) or 'none'}")
        for name, least in (("between", 0), ("spotter_updates", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(self, name)}")
        if self.own_budget <= 0:
            raise ConfigError(f"--own-budget must be a time to train in, not {self.own_budget:g}")
        if strange := [number for number in self.own_numbers if number not in self.real]:
            raise ConfigError(
                f"--own {strange[0]} is none of --real ({' '.join(map(str, self.real))}); name numbers of those, or 0 for none"
            )

    @property
    def own_numbers(self) -> tuple[int, ...]:
        """Those of `own` but for the 0 that stands for none."""
        return tuple(number for number in self.own if number)

    def refuse_for(self, experiment: str) -> None:
        """Raise `ConfigError` where something is given, and the experiment is another."""
        plain = asdict(Spotting())
        if given := [name for name, value in asdict(self).items() if value != plain[name]]:
            raise ConfigError(f"--{given[0].replace('_', '-')} is for the experiment augment; leave it out for {experiment}")


def require_shared(options: Options) -> None:
    """Raise `ConfigError` for a common option that this experiment has no use for."""
    plain = asdict(Options(options.data, options.out))
    given = [name for name, value in asdict(options).items() if value != plain[name] and name not in _SHARED]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} is for other experiments; leave it out for augment")
    if options.seeds is not None and options.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, not {options.seeds}")
