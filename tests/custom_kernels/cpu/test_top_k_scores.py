"""The native top_k_scores against float64 and against itself: in batches, with masks, on several threads."""

import numpy as np
import pytest

from custom_kernels import cpu
from tests.custom_kernels.cpu.conftest import WIDTHS, normal, rng
from tests.custom_kernels.test_top_k_scores import expected

pytestmark = [
    pytest.mark.skipif(not cpu.available(), reason=cpu.why_unavailable() or "available"),
    pytest.mark.usefixtures("isa", "poison"),
]
DTYPES = ["float32", "float16", "bfloat16", "int8"]


def stored(rows: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows as the kernel reads them, and their values."""
    if dtype == "bfloat16":
        bits = (rows.view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32)
    if dtype == "int8":
        rows = np.clip(np.rint(rows * 40), -128, 127)
    kept = rows.astype(dtype)
    return kept, kept.astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_scores_and_rows_are_those_of_float64(width: int, dtype: str) -> None:
    g = rng(width, 21)
    for count, k in ((1, 3), (17, 5), (64, 64), (2500, 10)):
        kept, rows = stored(normal(g, count, width), dtype)
        queries = normal(g, 3, width)
        found = cpu.top_k_scores(queries, kept, k)
        scores = queries.astype(np.float64) @ rows.astype(np.float64).T
        there = min(k, count)
        best = -np.sort(-scores, axis=1)[:, :there]
        np.testing.assert_allclose(found[:, 0, :there], best, rtol=1e-4, atol=1e-4 * np.abs(scores).max())
        places = found[:, 1, :there].astype(int)
        own = np.take_along_axis(scores, places, axis=1)
        np.testing.assert_allclose(found[:, 0, :there], own, rtol=1e-4, atol=1e-5 * np.abs(scores).max())
        assert all(len(set(row)) == there for row in places.tolist())
        assert (found[:, 1, there:] == -1).all()
        assert np.isneginf(found[:, 0, there:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_masks_and_scales(dtype: str) -> None:
    g = rng(22)
    for count in (1, 15, 16, 63, 1500, 4099):
        whole = g.integers(-3, 4, (count, 20)).astype(np.float32)
        kept = stored(whole / 40, dtype)[0] if dtype == "int8" else stored(whole, dtype)[0]
        queries = g.integers(-3, 4, (9, 20)).astype(np.float32)
        queries[:4, 3:] = 0  # to which many rows are equally near
        bits = g.integers(0, 256, -(-count // 8), dtype=np.uint8)
        if count > 1000:
            bits[20:120] = 0  # whole groups of rows that are passed over
        scales = g.choice([0.5, 1.0, 2.0], count).astype(np.float32)
        wanted = np.unpackbits(bits, count=count, bitorder="little").astype(bool)
        k = min(count, 30)
        np.testing.assert_array_equal(
            cpu.top_k_scores(queries, kept, k, bits, scales), expected(queries, whole, k, wanted, scales)
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_query_scores_the_same_in_a_batch_and_on_any_number_of_threads(dtype: str, threads: int) -> None:
    g = rng(23)
    kept, _ = stored(normal(g, 5000, 100), dtype)
    queries = normal(g, 11, 100)
    together = cpu.top_k_scores(queries, kept, 20)
    alone = [cpu.top_k_scores(queries[i : i + 1], kept, 20)[0] for i in range(11)]
    np.testing.assert_array_equal(together, np.stack(alone))
    cpu.set_num_threads(1)
    np.testing.assert_array_equal(together, cpu.top_k_scores(queries, kept, 20))


def test_float16_of_every_size() -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16)  # all that are finite and positive
    halves = np.concatenate([halves, -halves])[:, None]
    found = cpu.top_k_scores(np.ones((1, 1), np.float32), halves, len(halves))
    np.testing.assert_array_equal(found[0, 0], -np.sort(-halves[:, 0].astype(np.float32)))


def test_inner_products_are_rounded_once() -> None:
    g = rng(24)
    for width in WIDTHS:
        rows, queries = normal(g, 300, width), normal(g, 4, width)
        places = g.integers(-1, 300, (4, 150)).astype(np.int32)
        found = cpu.inner_products(queries, rows, places)
        wanted = np.take_along_axis(queries.astype(np.float64) @ rows.astype(np.float64).T, places.clip(0), axis=1)
        there = places >= 0
        np.testing.assert_allclose(found[there], wanted[there], rtol=1.2e-7, atol=1e-12)
        assert np.isneginf(found[~there]).all()


def test_bad_input() -> None:
    queries, rows = np.ones((1, 4), np.float32), np.ones((9, 4), np.float32)
    for bad, message in (
        ((queries, rows[:, :3], 2), r"rows \[M, 4\]"),
        ((queries, rows.astype(np.int64), 2), "int64"),
        ((queries, rows, 0), "k from 1 up"),
        ((queries, rows, 1, np.zeros(1, np.uint8)), r"uint8 \[2\]"),
        ((queries, rows, 1, None, np.ones(8, np.float32)), "scales"),
        ((queries, rows[:, ::2], 1), "rows"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            cpu.top_k_scores(*bad)
    with pytest.raises(ValueError, match="below 9"):
        cpu.inner_products(queries, rows, np.array([[9]], np.int32))
