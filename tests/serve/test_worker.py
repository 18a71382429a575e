"""serve/worker.py and serve/jobs.py, with a voice that only notes what it is asked: batches, order, refusals, and who suffers from what."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

import pytest
from serving import wait_until

from duovox.contracts import GenerationError
from duovox.serve.jobs import Job
from duovox.serve.metrics import Metrics
from duovox.serve.refusals import RefusedError
from duovox.serve.worker import LONGEST_WAIT, Worker


@dataclass
class Note:
    """In the place of a voice: what was run, and a door that holds it up."""

    batches: list[list[Any]] = field(default_factory=list)
    door: threading.Event = field(default_factory=threading.Event)
    checks: int = 0


@dataclass(frozen=True)
class Echo:
    """Gives every item back, in capitals; an item that is an error is raised, behind the door."""

    kind: str = ""

    def run(self, voice: Note, items: Sequence[Any], check: Callable[[], None]) -> list[Any]:
        voice.batches.append(list(items))
        while not voice.door.wait(0.002):
            voice.checks += 1
            check()
        for item in items:
            if isinstance(item, Exception):
                raise item
        return [item.upper() for item in items]


Made = tuple[Worker, Note]


@pytest.fixture
def make() -> Iterator[Callable[..., Made]]:
    """Make a running worker; those whose door is closed are held up at their first batch."""
    made: list[Made] = []

    def worker(door_open: bool = True, max_batch: int = 4, wait: float = 0.0, queue: int = 100) -> Made:
        note = Note()
        if door_open:
            note.door.set()
        new = Worker(lambda: note, Metrics(), max_batch=max_batch, wait=wait, queue=queue)  # type: ignore[arg-type, return-value]
        new.start()
        made.append((new, note))
        wait_until(lambda: new._voice is not None)
        return made[-1]

    yield worker
    for one, note in made:
        note.door.set()
        one.stop(5)
        assert not one._thread.is_alive()


def held_up(make: Callable[..., Made], **settings: Any) -> tuple[Worker, Note, Future[list[Any]]]:
    """A worker that is busy with a job of its own, so that a queue can form."""
    worker, note = make(door_open=False, **settings)
    first = worker.submit(Echo("first"), ["first"])
    wait_until(lambda: note.batches == [["first"]])
    return worker, note, first


def results(*futures: Future[list[Any]]) -> list[list[Any]]:
    return [future.result(10) for future in futures]


def refused(future: Future[list[Any]]) -> RefusedError:
    error = future.exception(10)
    assert isinstance(error, RefusedError)
    return error


# batches


def test_equal_tasks_share_a_batch_and_everybody_gets_his_own(make: Callable[..., Made]) -> None:
    worker, note, first = held_up(make)
    futures = [worker.submit(Echo(kind), items) for kind, items in [("x", ["a"]), ("y", ["b"]), ("x", ["c", "d"]), ("y", ["e"])]]
    note.door.set()
    assert results(first, *futures) == [["FIRST"], ["A"], ["B"], ["C", "D"], ["E"]]
    assert note.batches == [["first"], ["a", "c", "d"], ["b", "e"]]


def test_the_oldest_is_served_first(make: Callable[..., Made]) -> None:
    worker, note, _ = held_up(make, max_batch=2)
    futures = [worker.submit(Echo(kind), [kind + str(number)]) for number, kind in enumerate("xyxyx")]
    note.door.set()
    results(*futures)
    assert note.batches[1:] == [["x0", "x2"], ["y1", "y3"], ["x4"]]


def test_a_large_job_is_split_and_others_fill_what_is_left(make: Callable[..., Made]) -> None:
    worker, note, _ = held_up(make, max_batch=4)
    large, small = worker.submit(Echo(), list("abcdef")), worker.submit(Echo(), list("xyz"))
    note.door.set()
    assert results(large, small) == [list("ABCDEF"), list("XYZ")]
    assert note.batches[1:] == [list("abcd"), list("efxy"), ["z"]]


def test_the_first_waits_a_moment_for_others(make: Callable[..., Made]) -> None:
    worker, note = make(wait=5.0, max_batch=3)
    began = time.monotonic()
    futures = [worker.submit(Echo(), [item]) for item in "abc"]
    results(*futures)
    assert note.batches == [["a", "b", "c"]]
    assert time.monotonic() - began < 4  # a full batch does not wait to the end
    assert results(make(wait=0.05)[0].submit(Echo(), ["alone"])) == [["ALONE"]]


def test_a_job_needs_not_hold_anything() -> None:
    job = Job(Echo(), list("abc"))
    assert job.left == 3 and job.take(2) == ["a", "b"] and job.left == 1 and job.take(9) == ["c"] and job.left == 0
    job.add([1, 2])
    assert not job.future.done()
    job.add([3])
    assert job.future.result(0) == [1, 2, 3]
    job.fail(ValueError())  # too late, and no matter


# a full queue


def test_a_full_queue_refuses_and_says_when_to_come_back(make: Callable[..., Made]) -> None:
    worker, note, _ = held_up(make, queue=3)
    futures = [worker.submit(Echo(), [item]) for item in "abc"]
    with pytest.raises(RefusedError) as caught:
        worker.submit(Echo(), ["d"])
    assert (caught.value.status_code, caught.value.code) == (429, "busy")
    assert caught.value.headers == {"Retry-After": "3"}  # three clips, and nothing is known of the speed yet
    assert worker._metrics.refused._value.get() == 1 and worker.waiting == 3
    note.door.set()
    assert results(*futures) == [["A"], ["B"], ["C"]]
    assert results(worker.submit(Echo(), ["d"])) == [["D"]]


def test_when_to_come_back_goes_by_the_recent_speed(make: Callable[..., Made]) -> None:
    worker, _, _ = held_up(make, queue=5)
    for pace, said in ((2.3, 12), (0.001, 1), (1e9, LONGEST_WAIT)):
        worker._pace = pace
        while worker.waiting < 5:
            worker.submit(Echo(), ["a"])
        with pytest.raises(RefusedError) as caught:
            worker.submit(Echo(), ["b"])
        assert caught.value.headers == {"Retry-After": str(said)}


def test_the_speed_is_measured(make: Callable[..., Made]) -> None:
    worker, note, first = held_up(make)
    time.sleep(0.3)
    note.door.set()
    results(first)
    wait_until(lambda: worker._pace is not None)
    slow = worker._pace
    assert slow is not None and slow >= 0.3
    results(worker.submit(Echo(), list("abcd")))
    wait_until(lambda: worker._pace != slow)
    assert 0.8 * slow <= worker._pace < slow  # type: ignore[operator]


def test_one_request_may_be_larger_than_the_queue(make: Callable[..., Made]) -> None:
    worker, _ = make(queue=2, max_batch=2)
    assert results(worker.submit(Echo(), list("abcdefg"))) == [list("ABCDEFG")]


# losing interest


def test_a_cancelled_job_is_never_begun_and_makes_room(make: Callable[..., Made]) -> None:
    worker, note, _ = held_up(make, queue=2)
    gone, stays = worker.submit(Echo(), ["gone"]), worker.submit(Echo(), ["stays"])
    gone.cancel()
    more = worker.submit(Echo(), ["more"])
    note.door.set()
    assert results(stays, more) == [["STAYS"], ["MORE"]]
    assert note.batches[1:] == [["stays", "more"]]


def test_a_batch_stops_when_nobody_is_left_in_it(make: Callable[..., Made]) -> None:
    worker, note, first = held_up(make)
    first.cancel()
    futures = [worker.submit(Echo(), [item]) for item in "ab"]
    wait_until(lambda: note.batches == [["first"], ["a", "b"]])  # though the door is closed
    futures[0].cancel()
    seen = note.checks
    wait_until(lambda: note.checks > seen + 5)
    note.door.set()
    assert results(futures[1]) == [["B"]]
    with pytest.raises(CancelledError):
        futures[0].result(0)


def test_what_is_left_of_a_job_goes_with_it(make: Callable[..., Made]) -> None:
    worker, note, first = held_up(make, max_batch=2)
    first.cancel()
    large = worker.submit(Echo(), list("abcdef"))
    wait_until(lambda: note.batches == [["first"], ["a", "b"]])
    large.cancel()
    wait_until(lambda: worker.waiting == 0 and note.batches == [["first"], ["a", "b"]])
    note.door.set()
    assert results(worker.submit(Echo(), ["x"])) == [["X"]]
    assert note.batches[-2:] == [["a", "b"], ["x"]]


# failing


def test_an_error_of_one_caller_is_his_alone(make: Callable[..., Made]) -> None:
    worker, note, _ = held_up(make)
    futures = [worker.submit(Echo(), [item]) for item in ("a", GenerationError("lower gamma"), "b")]
    note.door.set()
    assert results(futures[0], futures[2]) == [["A"], ["B"]]
    error = refused(futures[1])
    assert (error.status_code, error.code, error.detail) == (422, "generation_error", "lower gamma")


def test_a_fault_of_ours_fails_its_batch_is_logged_and_tells_nothing(make: Callable[..., Made], caplog: pytest.LogCaptureFixture) -> None:
    worker, note, _ = held_up(make)
    futures = [worker.submit(Echo("x"), [item]) for item in ("a", ValueError("secret"))]
    other = worker.submit(Echo("y"), ["c"])
    with caplog.at_level(logging.ERROR):
        note.door.set()
        for future in futures:
            error = refused(future)
            assert (error.status_code, error.code) == (500, "internal_error") and "secret" not in str(error.detail)
        assert results(other) == [["C"]]
    assert "a batch of 2 failed" in caplog.text and "secret" in caplog.text


def test_the_rest_of_a_job_that_failed_is_not_begun(make: Callable[..., Made]) -> None:
    worker, note, _ = held_up(make, max_batch=1)
    job = worker.submit(Echo(), [GenerationError("no"), "never"])
    note.door.set()
    refused(job)
    assert results(worker.submit(Echo(), ["next"])) == [["NEXT"]]
    assert ["never"] not in note.batches


# the beginning and the end


def test_nothing_is_done_before_the_voice_is_loaded() -> None:
    loaded, note = threading.Event(), Note()
    note.door.set()
    worker = Worker(lambda: loaded.wait() and note, Metrics(), max_batch=4, wait=0, queue=9)  # type: ignore[arg-type, return-value]
    worker.start()
    with pytest.raises(RefusedError) as caught:
        worker.voice  # noqa: B018
    assert (caught.value.status_code, caught.value.code) == (503, "loading") and "Retry-After" in (caught.value.headers or {})
    loaded.set()
    assert results(worker.submit(Echo(), ["a"])) == [["A"]]
    assert worker.voice is note  # type: ignore[comparison-overlap]
    worker.stop(5)


def test_a_voice_that_cannot_be_loaded_ends_the_worker_and_says_why() -> None:
    ended = threading.Event()

    def load() -> Any:
        raise GenerationError("no bundle")

    worker = Worker(load, Metrics(), max_batch=4, wait=0, queue=9)
    worker.on_failure = ended.set
    job = worker.submit(Echo(), ["a"])
    worker.start()
    assert refused(job).code == "shutting_down"
    assert ended.wait(5) and str(worker.failure) == "no bundle"
    worker.stop(5)


def test_the_end_finishes_what_is_there(make: Callable[..., Made]) -> None:
    worker, note, first = held_up(make, max_batch=1)
    futures = [worker.submit(Echo(), [item]) for item in "abc"]
    ending = threading.Thread(target=worker.stop, args=(10,))
    ending.start()
    wait_until(lambda: worker._closing)
    for refuse in (lambda: worker.submit(Echo(), ["late"]), lambda: worker.voice):
        with pytest.raises(RefusedError) as caught:
            refuse()
        assert (caught.value.status_code, caught.value.code) == (503, "shutting_down")
    note.door.set()
    ending.join(10)
    assert results(first, *futures) == [["FIRST"], ["A"], ["B"], ["C"]]
    assert worker.failure is None and not worker._thread.is_alive()


def test_the_end_does_not_wait_for_ever(make: Callable[..., Made]) -> None:
    worker, _, first = held_up(make)
    queued = worker.submit(Echo(), ["a"])
    began = time.monotonic()
    worker.stop(0.1)
    assert time.monotonic() - began < 5 and not worker._thread.is_alive()
    assert {refused(first).code, refused(queued).code} == {"shutting_down"}


def test_a_worker_that_never_began_can_be_stopped() -> None:
    Worker(lambda: None, Metrics(), max_batch=1, wait=0, queue=1).stop(1)  # type: ignore[arg-type, return-value]


def test_what_happened_is_counted(make: Callable[..., Made]) -> None:
    worker, note, first = held_up(make)
    worker.submit(Echo(), list("abc"))
    text = worker._metrics.text().decode()
    assert "duovox_queue_clips 3.0" in text
    note.door.set()
    results(first, worker.submit(Echo(), ["d"]))
    text = worker._metrics.text().decode()
    assert "duovox_queue_clips 0.0" in text and 'duovox_batch_clips_bucket{le="1.0"}' in text
    computing = next(line for line in text.splitlines() if line.startswith("duovox_computing_seconds_total"))
    assert float(computing.split()[1]) > 0
