"""What a queue says of time: its speed, how long what waits will take, and where a job's time went."""

import time
from collections.abc import Iterator

import pytest

from mlx_embed.serve.queue import SPEED_WEIGHT, BatchReport, Job, ModelQueue, Tokens

TOKENS = Tokens(range(10), None, 10)


@pytest.fixture
def queue() -> Iterator[ModelQueue[str]]:
    """One to which the test reports batches by itself."""
    made: ModelQueue[str] = ModelQueue(
        "idle", lambda texts: [], lambda key, texts: [], batch_tokens=100, longest=100, waiting_tokens=100
    )
    yield made
    made.close()


def test_the_speed_follows_the_last_batches(queue: ModelQueue[str]) -> None:
    queue.waiting = 50
    assert queue.seconds_to_wait() == 1, "nothing is known before the first batch"
    job = Job(["a", "b"])
    queue._report([(job, 0, TOKENS)], 1.0)
    assert queue.speed == pytest.approx(10)
    assert queue.seconds_to_wait() == pytest.approx(5)
    queue._report([(job, 0, TOKENS), (job, 1, TOKENS)], 0.2)
    assert queue.speed == pytest.approx(10 + SPEED_WEIGHT * (100 - 10))


def test_where_the_time_of_a_job_went(queue: ModelQueue[str]) -> None:
    reports: list[BatchReport] = []
    queue.watch = reports.append
    job = Job(["a"])
    job.left, job.begun, job.tokenizing = 0, time.monotonic() - 1000, 300.0
    queue._report([(job, 0, TOKENS)], 200.0)
    assert job.inferring == 200
    assert job.queued == pytest.approx(1000 - 300 - 200, abs=90)  # the test may be held up
    assert job.future.result(0) is job
    assert reports == [BatchReport(1, 10, 200.0)]
