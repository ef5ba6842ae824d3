"""What a result may not depend on: threads, the rest of the batch, other callers, a fork; and where NaN goes."""

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import layer, normal, rng, some_weights, starts

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]


def test_results_do_not_depend_on_threads_or_batch(threads: int) -> None:
    weights, lengths = some_weights(), [40, 1, 700, 13, 0, 129, 64, 2]
    cu = starts(lengths)
    x = normal(rng(16), cu[-1], 96)
    together = layer(x, cu, weights)
    cpu.set_num_threads(1)
    np.testing.assert_allclose(together, layer(x, cu, weights), rtol=0, atol=1e-6)
    for start, n in zip(cu, lengths, strict=False):
        alone = layer(x[start : start + n].copy(), starts([n]), weights)
        np.testing.assert_allclose(together[start : start + n], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [20, 300])
def test_nan_stays_in_its_row(rows: int, threads: int) -> None:
    weights, ones = some_weights(), np.ones(96, np.float32)
    x = normal(rng(17), rows, 96)
    x[rows // 2, 5] = np.nan
    for found in (
        cpu.linear(x, weights["up"], "gelu"),
        cpu.linear(x, weights["up"], "silu"),
        cpu.linear(x, weights["up"], "relu"),
        cpu.layer_norm(x, ones, None, 1e-5),
        cpu.output_norm(x, weights["out"], x, ones, None, 1e-5),
        cpu.feed_forward(x, weights["up"], weights["down"], "gelu", ones, None, 1e-5),
    ):
        assert np.isnan(found).any(axis=1).nonzero()[0].tolist() == [rows // 2]


def _forward_in_child(queue: "multiprocessing.Queue[bytes]", x: np.ndarray, cu: np.ndarray) -> None:
    result = layer(x, cu, some_weights())
    tasks = Path("/proc/self/task")
    started = sum(1 for _ in tasks.iterdir()) > 2 if tasks.exists() else True  # more than this and the queue's
    queue.put(result.tobytes() if started else b"")


def test_a_forked_child_works(isa: str) -> None:
    cpu.set_num_threads(3)
    x, cu = normal(rng(19), 500, 96), starts([500])
    wanted = layer(x, cu, some_weights())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_forward_in_child, args=(queue, x, cu))
    child.start()
    found = np.frombuffer(queue.get(timeout=60), np.float32).reshape(wanted.shape)
    child.join(timeout=60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(layer(x, cu, some_weights()), wanted)
    cpu.set_num_threads(cpu.usable_cores())


def test_several_python_threads_at_once(threads: int) -> None:
    weights, cu = some_weights(), starts([100, 200])
    inputs = [normal(rng(20, i), 300, 96) for i in range(4)]
    wanted = [layer(x, cu, weights) for x in inputs]
    wrong = []

    def work(i: int) -> None:
        for _ in range(10):
            if not np.array_equal(layer(inputs[i], cu, weights), wanted[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_bad_thread_count_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cpu.set_num_threads(0)
