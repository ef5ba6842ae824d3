"""A queue: what shares a batch, who waits, what is refused, and whom an error reaches."""

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from mlx_embed.serve.queue import (
    BatchReport,
    Job,
    ModelQueue,
    QueueClosedError,
    QueueFullError,
    TextError,
    TextTooLongError,
    Tokens,
)

SECONDS = 10


class Stub:
    """A model of words: a token each, whose vector is the word's length; "nan" gives none, "boom" fails its batch."""

    def __init__(self, **options: Any) -> None:
        self.batches: list[list[str]] = []
        self.begun: list[int] = []  # texts of each batch whose rows are not waited for yet
        self.most_begun = 0
        self.keys: list[Hashable] = []
        self.gate = threading.Event()
        self.gate.set()
        self.computing = threading.Semaphore(0)
        self.words: list[str] = []
        self.queue: ModelQueue[str] = ModelQueue(
            "stub",
            self.tokenize,
            self.begin,
            **{"batch_tokens": 10, "longest": 8, "waiting_tokens": 1000} | options,
        )

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        found = []
        for text in texts:
            if text == "unreadable":
                raise ValueError("unreadable")
            words = text.split()
            self.words += words
            found.append(Tokens([len(self.words) - len(words) + i for i in range(len(words))][:8], None, len(words)))
        return found

    def begin(self, key: Hashable, texts: list[Tokens]) -> Callable[[], Sequence[Any]]:
        self.begun.append(len(texts))
        self.most_begun = max(self.most_begun, len(self.begun))
        return partial(self.compute, key, texts)

    def compute(self, key: Hashable, texts: list[Tokens]) -> Sequence[Any]:
        self.begun.pop(0)
        self.computing.release()
        assert self.gate.wait(SECONDS)
        words = [[self.words[i] for i in text.ids] for text in texts]
        self.batches.append([" ".join(row) for row in words])
        self.keys.append(key)
        if any("boom" in row for row in words):
            raise RuntimeError("boom")
        return np.array([[np.nan if "nan" in row else sum(map(len, row))] for row in words], dtype=np.float32)

    def ask(self, *texts: str, **options: Any) -> Job[str]:
        job: Job[str] = Job(texts, **options)
        self.queue.submit(job)
        return job

    def held(self) -> Job[str]:
        """A job that runs until `gate` is set: what is asked for meanwhile waits."""
        self.gate.clear()
        job = self.ask("held")
        assert self.computing.acquire(timeout=SECONDS)
        return job


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.gate.set()
    made.queue.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.001)


def read(stub: Stub, words: int) -> None:
    """Wait until so many words are tokenized, and wait for the device."""
    until(lambda: len(stub.words) == words)
    time.sleep(0.002)


def test_rows_are_in_the_order_of_the_texts(stub: Stub) -> None:
    job = stub.ask("a bb ccc", "a", "ccc bb").future.result(SECONDS)
    assert [float(row[0]) for row in job.rows] == [6, 1, 5]
    assert job.counts == [3, 1, 2]
    assert stub.queue.waiting == stub.queue.jobs == 0


def test_what_waits_while_a_batch_runs_becomes_the_next(stub: Stub) -> None:
    held = stub.held()
    jobs = [stub.ask(f"{number} word") for number in range(4)]
    read(stub, 9)
    stub.gate.set()
    for job in [held, *jobs]:
        job.future.result(SECONDS)
    assert stub.batches == [["held"], [f"{number} word" for number in range(4)]]


def test_an_idle_device_waits_for_nothing(stub: Stub) -> None:
    for number in range(3):
        stub.ask(str(number)).future.result(SECONDS)
    assert stub.batches == [["0"], ["1"], ["2"]]


def test_a_batch_has_no_more_tokens_than_the_budget(stub: Stub) -> None:
    reports: list[BatchReport] = []
    stub.queue.watch = reports.append
    held = stub.held()
    large = stub.ask(*["a b c"] * 20)
    read(stub, 61)
    stub.gate.set()
    held.future.result(SECONDS)
    large.future.result(SECONDS)
    until(lambda: len(reports) == 8)
    assert [(report.texts, report.tokens) for report in reports] == [(1, 1), *[(3, 9)] * 6, (2, 6)]


def test_a_query_behind_a_large_job_is_in_the_next_batch(stub: Stub) -> None:
    held = stub.held()
    large = stub.ask(*["a b c"] * 100)
    query = stub.ask("query")
    read(stub, 302)
    stub.gate.set()
    query.future.result(SECONDS)
    assert "query" in stub.batches[1]
    held.future.result(SECONDS)
    large.future.result(SECONDS)


def test_jobs_of_different_keys_share_no_batch(stub: Stub) -> None:
    held = stub.held()
    jobs = [stub.ask("a", key=1), stub.ask("b", key=2), stub.ask("c", key=1)]
    read(stub, 4)
    stub.gate.set()
    for job in [held, *jobs]:
        job.future.result(SECONDS)
    assert stub.batches[1:] == [["a", "c"], ["b"]]
    assert stub.keys[1:] == [1, 2]


def test_a_text_that_is_not_finite_fails_its_own_job_alone(stub: Stub) -> None:
    held = stub.held()
    good, bad = stub.ask("good"), stub.ask("fine", "nan")
    read(stub, 4)
    stub.gate.set()
    with pytest.raises(TextError, match="not finite") as found:
        bad.future.result(SECONDS)
    assert found.value.index == 1
    assert float(good.future.result(SECONDS).rows[0][0]) == 4
    held.future.result(SECONDS)
    assert stub.queue.waiting == stub.queue.jobs == 0


def test_an_error_of_a_batch_fails_only_the_job_whose_text_it_is(stub: Stub) -> None:
    held = stub.held()
    good, bad, other = stub.ask("good"), stub.ask("boom"), stub.ask("other")
    read(stub, 4)
    stub.gate.set()
    with pytest.raises(RuntimeError, match="boom"):
        bad.future.result(SECONDS)
    assert float(good.future.result(SECONDS).rows[0][0]) == 4
    assert float(other.future.result(SECONDS).rows[0][0]) == 5
    held.future.result(SECONDS)


def test_a_text_that_cannot_be_tokenized_fails_its_own_job_alone(stub: Stub) -> None:
    bad, good = stub.ask("unreadable"), stub.ask("good")
    with pytest.raises(ValueError, match="unreadable"):
        bad.future.result(SECONDS)
    assert float(good.future.result(SECONDS).rows[0][0]) == 4


def test_a_text_over_the_limit_of_its_job_fails_it(stub: Stub) -> None:
    long = "a b c d e f g h i"
    assert stub.ask(long).future.result(SECONDS).counts == [9]
    with pytest.raises(TextTooLongError, match="9 tokens") as found:
        stub.ask("a", long, limit=8).future.result(SECONDS)
    assert found.value.index == 1


def test_a_cancelled_job_frees_its_place(stub: Stub) -> None:
    held = stub.held()
    gone = stub.ask(*["gone " * 3] * 20)
    kept = stub.ask("kept")
    read(stub, 62)
    assert stub.queue.waiting == 61
    assert gone.future.cancel()
    assert stub.queue.waiting == 1
    stub.gate.set()
    kept.future.result(SECONDS)
    held.future.result(SECONDS)
    assert stub.batches == [["held"], ["kept"]]


def test_waiting_tokens_are_bounded(stub: Stub) -> None:
    held = stub.held()
    # Before a text is tokenized it counts as many tokens as it has characters, here 7; then 3.
    large = [stub.ask(*["a b c"] * 44)]
    until(lambda: stub.queue.waiting == 132)
    large.append(stub.ask(*["a b c"] * 44))
    until(lambda: stub.queue.waiting == 264)
    with pytest.raises(QueueFullError):  # 264 + 308: large jobs have half of the room
        stub.ask(*["a b c"] * 44)
    small = []
    while stub.queue.waiting + 8 <= 1000:
        small.append(stub.ask("a b c d"))
        read(stub, 1 + 264 + 4 * len(small))
    with pytest.raises(QueueFullError):
        stub.ask("a b c d")
    assert stub.queue.waiting >= 992
    stub.gate.set()
    for job in [held, *large, *small]:
        job.future.result(SECONDS)
    assert stub.queue.waiting == 0
    assert stub.queue.speed > 0


def test_a_job_beyond_every_bound_is_taken_where_nothing_waits(stub: Stub) -> None:
    assert len(stub.ask(*["a b c"] * 2000).future.result(SECONDS).rows) == 2000


def test_a_job_that_is_done_lets_go_of_what_it_holds(stub: Stub) -> None:
    job = stub.ask("a").future.result(SECONDS)
    job.release()
    assert not job.texts
    assert not job.rows
    held = stub.held()
    held.release()  # a thread is at it
    stub.gate.set()
    assert len(held.future.result(SECONDS).rows) == 1


def test_closing_fails_what_waits(stub: Stub) -> None:
    held = stub.held()
    waiting = stub.ask("waiting")
    closing = threading.Thread(target=stub.queue.close)
    closing.start()
    with pytest.raises(QueueClosedError):
        waiting.future.result(SECONDS)
    stub.gate.set()
    closing.join(SECONDS)
    assert not closing.is_alive()
    with pytest.raises(QueueClosedError):
        held.future.result(SECONDS)
    with pytest.raises(QueueClosedError):
        stub.ask("late")


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_full_batches_are_begun_ahead(ahead: int) -> None:
    stub = Stub(ahead=ahead)
    held = stub.held()
    large = stub.ask(*["a b c"] * 17)
    read(stub, 52)
    stub.gate.set()
    large.future.result(SECONDS)
    assert held.future.result(SECONDS).rows[0][0] == 4
    # The last two texts are no full batch, and wait for the one in front.
    assert [len(batch) for batch in stub.batches] == [1, 3, 3, 3, 3, 3, 2]
    assert stub.most_begun == 1 + ahead
    assert {float(row[0]) for row in large.rows} == {3.0}
    stub.queue.close()


def test_a_batch_that_is_not_full_grows_while_another_runs() -> None:
    stub = Stub(ahead=1)
    held = stub.held()
    jobs = [stub.ask(f"{number} word") for number in range(4)]
    read(stub, 9)
    assert stub.begun == []
    stub.gate.set()
    for job in [held, *jobs]:
        job.future.result(SECONDS)
    assert stub.batches == [["held"], [f"{number} word" for number in range(4)]]
    stub.queue.close()


def test_an_error_of_a_batch_that_was_begun_ahead() -> None:
    stub = Stub(ahead=1)
    held = stub.held()
    good, bad, others = stub.ask("good"), stub.ask("boom"), [stub.ask(*["a b c"] * 4) for _ in range(3)]
    read(stub, 39)
    stub.gate.set()
    with pytest.raises(RuntimeError, match="boom"):
        bad.future.result(SECONDS)
    assert float(good.future.result(SECONDS).rows[0][0]) == 4
    assert all(float(row[0]) == 3 for job in others for row in job.future.result(SECONDS).rows)
    held.future.result(SECONDS)
    assert stub.queue.waiting == stub.queue.jobs == 0
    stub.queue.close()
