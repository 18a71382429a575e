"""Settings of training: how long and how fast, and which of the clips a score model sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

from duovox.config.fields import check, require


@dataclass(frozen=True)
class TrainConfig:
    """How one network is trained. `updates` counts optimiser steps; the last `cooldown` share of them decays the rate to 0.

    No updates at all leave the network as it was drawn (a classifier like that is a baseline of its own). `gain_db` and `stretch_mel`
    are the most by which the training of a classifier or a speaker network makes clips louder or softer, and their mel axis longer or
    shorter (a share); `colour_db` is the most by which it colours them, as microphones and rooms do, so that it hears voices.
    `balance` is how far every part makes up for rare labels (see `data.batches.balanced`).
    """

    updates: int = 3000
    batch: int = 64
    rate: float = 2e-3
    warmup: int = 100
    cooldown: float = 0.3
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    shift_frames: int = 0
    gain_db: float = 0.0
    stretch_mel: float = 0.0
    colour_db: float = 0.0
    balance: float = 0.0
    label_smoothing: float = 0.0
    validate_every: int = 500
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        positive = "batch rate clip_norm validate_every checkpoint_every"
        check(
            "train",
            self,
            positive=positive,
            not_negative="updates warmup weight_decay shift_frames gain_db stretch_mel colour_db balance seed",
        )
        require(self.stretch_mel < 1, f"train.stretch_mel must lie in [0, 1), not {self.stretch_mel}")
        require(0 <= self.cooldown <= 1, f"train.cooldown must lie in [0, 1], not {self.cooldown}")
        require(0 <= self.ema_decay < 1, f"train.ema_decay must lie in [0, 1), not {self.ema_decay}")
        require(0 <= self.label_smoothing < 1, f"train.label_smoothing must lie in [0, 1), not {self.label_smoothing}")


def with_updates(train: TrainConfig, updates: int) -> TrainConfig:
    """The same training with another number of updates; warm-up and averaging shrink with it where it is smaller."""
    share = min(1.0, updates / max(1, train.updates))
    decay = max(0.0, 1 - (1 - train.ema_decay) / share) if share else 0.0
    return replace(train, updates=updates, warmup=round(train.warmup * share), ema_decay=decay)


@dataclass(frozen=True)
class SeenConfig:
    """Which of the train clips a score model sees: a share of them (the same at every start), of these labels (none named: all).

    `other_data` lets it see other recordings than its classifier was trained on: they are scaled as the classifier's were, and words
    that it does not know have no label.
    """

    share: float = 1.0
    labels: tuple[str, ...] = ()
    other_data: bool = False

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, f"subnet_sees.share must lie in (0, 1], not {self.share}")
