"""Packing: every text once, under the budget, in few shapes."""

import numpy as np
import pytest

from mlx_embed.batching import MAX_PADDING, MIN_TOKENS, bucket, pack


def rows(lengths: list[int]) -> list[list[int]]:
    return [[1000 + i] * n for i, n in enumerate(lengths)]


def ragged(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(1, 256, size=n).tolist()


@pytest.mark.parametrize("bucketed", [False, True])
@pytest.mark.parametrize("lengths", [[1], [3, 1, 2], [5] * 7, ragged(500), [2000, 1, 1, 2000]])
def test_every_text_is_in_one_batch(lengths: list[int], bucketed: bool) -> None:
    ids = rows(lengths)
    seen = []
    for batch in pack(ids, 1024, bucketed=bucketed):
        assert batch.cu_seqlens[0] == 0
        assert batch.cu_seqlens[-1] == len(batch.input_ids)
        sizes = np.diff(batch.cu_seqlens)
        assert sizes.min() >= 0
        assert sizes.max() <= batch.max_seqlen
        for place, text in enumerate(batch.texts):
            begin, end = batch.cu_seqlens[place : place + 2]
            assert batch.input_ids[begin:end].tolist() == ids[text]
            seen.append(int(text))
    assert sorted(seen) == list(range(len(lengths)))


def test_budget() -> None:
    for batch in pack(rows([*ragged(500), 5000]), 1024, bucketed=False):
        assert len(batch.input_ids) <= 1024 or len(batch.texts) == 1


def test_padding_of_attention_is_bounded() -> None:
    """A long text among short ones does not make a block of mostly nothing."""
    for batch in pack(rows([512, *([4] * 2000)]), 65536, bucketed=False):
        block, tokens = len(batch.texts) * batch.max_seqlen, len(batch.input_ids)
        assert block <= MAX_PADDING * tokens or tokens <= MIN_TOKENS


def test_shapes_are_few() -> None:
    """Whatever the mix of lengths, the batches of a large stream come in a bounded number of shapes."""
    shapes = set()
    for seed in range(40):
        for batch in pack(rows(ragged(2500, seed)), 16384, bucketed=True):
            shapes.add((len(batch.input_ids), len(batch.cu_seqlens), batch.max_seqlen))
    first = len(shapes)
    for seed in range(40, 80):
        for batch in pack(rows(ragged(2500, seed)), 16384, bucketed=True):
            shapes.add((len(batch.input_ids), len(batch.cu_seqlens), batch.max_seqlen))
    assert len(shapes) <= 1.25 * first <= 125


def test_buckets() -> None:
    sizes = sorted({bucket(n) for n in range(1, 1025)})
    assert sizes[:9] == [16, 20, 24, 28, 32, 40, 48, 56, 64]
    assert all(bucket(n) >= n for n in range(1, 5000))
    assert all(bucket(n) <= max(16, 1.25 * n) for n in range(1, 5000))
    assert [bucket(n, smallest=1) for n in range(1, 10)] == [1, 2, 3, 4, 5, 6, 7, 8, 10]
