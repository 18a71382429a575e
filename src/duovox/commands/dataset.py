"""The command `dataset`: takes a bundle and what is wanted of it, gives a data set, made by whatever machines there are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from duovox.commands.options import Sampling, SamplingOptions
from duovox.contracts import ConfigError, GenerationError
from duovox.dataset.options import Augmentation, Options
from duovox.processes import follows, ranks
from duovox.text import named as named_few
from duovox.text import printable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from duovox.dataset.engines.base import Run
    from duovox.dataset.run import Outcome


def dataset(
    options: Annotated[Options, arg(name="")],
    augmentation: Annotated[Augmentation, arg(name="")] = Augmentation(),  # noqa: B008 (frozen)
    sampling: SamplingOptions = Sampling(),  # noqa: B008 (frozen)
) -> None:
    """Make a data set of spoken words: many clips of each, with their seeds on record.

    The clips are cut into shards, each made whole or not at all: the same command goes on after an interruption, and any number of
    workers of any engine makes the same bytes. Clips that ran off to noise are thrown away, counted, and others made in their place.
    With torchrun: torchrun --nproc-per-node 8 -m duovox dataset --engine torchrun ...

    Args:
        options: What to make, and who makes it.
        augmentation: How the clips are changed.
        sampling: Settings of sampling, the bundle's own where left out.
    """
    if ranks() > 1 and options.engine != "torchrun":
        raise ConfigError(f"torchrun started {ranks()} processes; give --engine torchrun, or start one alone")
    if follows():
        if not options.dry_run:
            _follow()
        return
    from duovox.dataset.estimate import estimate
    from duovox.dataset.run import make_dataset, plan_dataset

    planned = plan_dataset(options, sampling.given(), augmentation)
    if options.dry_run:
        print(estimate(planned))
        return
    _report(make_dataset(planned, _engine(options)), options)


def _follow() -> None:
    """What all processes but the first do; the first says how it went, or where it is gone the second."""
    from duovox.dataset.engines.torchrun import LOST, follow
    from duovox.training.shares import LostProcessError

    try:
        follow()
    except LostProcessError as error:
        if not error.unsaid:
            sys.exit(1)
        raise GenerationError(LOST) from None


def _engine(options: Options) -> AbstractContextManager[Run]:
    if options.engine == "torchrun":
        from duovox.dataset.engines.torchrun import torchrun_engine

        return torchrun_engine()
    if options.engine == "ray":
        from duovox.dataset.engines.ray import ray_engine

        return ray_engine(options.workers, options.address)
    from duovox.dataset.engines.local import local_engine

    return local_engine(options.workers)


def _report(made: Outcome, options: Options) -> None:
    kept, tried = (sum(getattr(tally, name) for tally in made.tallies) for name in ("kept", "tried"))
    words = sum(target.positive for target in made.targets)
    negatives = sum(tally.kept for target, tally in zip(made.targets, made.tallies, strict=True) if not target.positive)
    named = f"{kept} clips of {words} words" + f", {negatives} of them negatives" * bool(negatives)
    dropped = f"; {tried - kept} of {tried} were thrown away" if tried > kept else ""
    print(f"{printable(str(options.out))}: {named}, all of them in {made.manifest.name}{dropped}")
    for target, tally in zip(made.targets, made.tallies, strict=True):
        if tally.kept < target.want:
            note = f"note: {printable(target.name)}: {tally.kept} of {target.want} after {tally.tried} tries; raise --tries in a new folder"
            print(note, file=sys.stderr)
    if deaf := [target.name for target, tally in zip(made.targets, made.tallies, strict=True) if target.positive and not tally.kept]:
        raise GenerationError(
            f"no clip of {named_few(deaf)} was kept (why, says the manifest); take another --preset or a lower --threshold in a new folder"
        )
