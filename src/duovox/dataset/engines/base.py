"""What every engine is: it has shards made by its workers, all of them, or says in one error why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duovox.contracts import GenerationError
from duovox.dataset.plan import Shard
from duovox.dataset.shards import Advance, Job

Run = Callable[[Job, Sequence[Shard], Advance], None]
"""Makes the shards of a job, and tells how many clips are made meanwhile. May be called again."""

DEATHS = 3
"""A shard that ends its worker so often ends the run."""


def too_deadly(which: str, how: str) -> GenerationError:
    """The error about a shard that ends its workers."""
    hint = "free some memory, or take fewer --workers or a smaller --batch in a new folder"
    return GenerationError(f"{which} ended its worker {DEATHS} times ({how}); {hint}; the same command goes on")
