"""Packing: every text once, under the budget, in few shapes."""

from itertools import pairwise

import numpy as np
import pytest

from mlx_embed.batching import (
    MAX_PADDING,
    MIN_BLOCK,
    packed_batches,
    packed_shapes,
)

BUDGETS = (1, 7, 64, 1000, 4096, 65536)
LONGEST = 512


def rows(lengths: list[int]) -> list[list[int]]:
    return [[1000 + i] * n for i, n in enumerate(lengths)]


def ragged(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(1, 256, size=n).tolist()


def streams() -> list[list[int]]:
    """Lists of lengths up to LONGEST: random ones, those at the sizes' edges, and one long text among short ones."""
    rng = np.random.default_rng(0)
    found = [[n] for n in range(LONGEST + 1)]
    for low, high in [(0, 0), (0, 2), (1, 1), (2, 3), (3, 8), (5, 40), (15, 17), (2, 300), (1, 512), (511, 512)]:
        for n in (2, 3, 7, 30, 129, 700):
            lengths = rng.integers(low, high, size=n, endpoint=True).tolist()
            found += [lengths, [*lengths, LONGEST], [*lengths, *(2**k for k in range(10))]]
    return found


@pytest.mark.parametrize("options", [{"bucketed": True}, {"bucketed": False}, {"bucketed": False, "padded": False}])
@pytest.mark.parametrize("lengths", [[1], [0], [3, 1, 2], [5] * 7, ragged(500), [2000, 1, 1, 0, 2000]])
def test_every_text_is_in_one_batch(lengths: list[int], options: dict[str, bool]) -> None:
    ids = rows(lengths)
    seen = []
    for batch in packed_batches(ids, 1024, **options):
        assert batch.cu_seqlens[0] == 0
        assert batch.cu_seqlens[-1] == len(batch.input_ids)
        sizes = np.diff(batch.cu_seqlens)
        assert sizes.min() >= 0
        assert sizes.max() <= batch.max_seqlen
        for place, text in enumerate(batch.texts):
            begin, end = batch.cu_seqlens[place : place + 2]
            assert batch.input_ids[begin:end].tolist() == ids[text]
            seen.append(int(text))
        assert batch.of == len(lengths)
    assert sorted(seen) == list(range(len(lengths)))


@pytest.mark.parametrize("options", [{"bucketed": True}, {"bucketed": False}, {"bucketed": False, "padded": False}])
def test_budget(options: dict[str, bool]) -> None:
    for batch in packed_batches(rows([*ragged(500), 5000]), 1000, **options):
        assert len(batch.input_ids) <= 1000 or len(batch.texts) == 1


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("bucketed", [False, True])
def test_padding_of_attention_is_bounded(bucketed: bool, mixed: bool) -> None:
    """A long text among short ones does not make a block of mostly nothing, fillers included."""
    for lengths in ([512, *([4] * 2000)], ragged(2000), [2**k for k in range(10)] * 30):
        for batch in packed_batches(rows(lengths), 65536, bucketed=bucketed, ragged=mixed):
            tokens, width = len(batch.input_ids), batch.max_seqlen
            room = MAX_PADDING * 65536 if mixed and tokens >= MIN_BLOCK else MIN_BLOCK
            assert len(batch.texts) * width <= max(MAX_PADDING * tokens, room)
            if bucketed:
                filled = MAX_PADDING * (tokens + width)
                most = max(filled, tokens + width + room) if tokens >= MIN_BLOCK else filled + MIN_BLOCK
                assert (len(batch.cu_seqlens) - 1) * width <= most


def test_without_padding_batches_are_as_full_as_their_order_allows() -> None:
    lengths = [512, 300, *ragged(3000), *([2] * 900)]
    batches = list(packed_batches(rows(lengths), 4096, bucketed=False, padded=False))
    laid = [int(n) for batch in batches for n in np.diff(batch.cu_seqlens)]
    assert laid == sorted(lengths, reverse=True)
    for batch, following in pairwise(batches):
        assert len(batch.input_ids) + following.cu_seqlens[1] > 4096


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
def test_shapes_are_those_stated(budget: int, mixed: bool) -> None:
    """Whatever the lengths: random, at the sizes' edges, or one long text among many short ones."""
    stated = packed_shapes(budget, LONGEST, ragged=mixed)
    for lengths in streams():
        for batch in packed_batches(rows(lengths), budget, bucketed=True, ragged=mixed):
            assert batch.shape in stated, lengths


@pytest.mark.parametrize(("budget", "longest", "most"), [(65536, 256, 352), (65536, 512, 384), (4096, 512, 256)])
def test_shapes_are_few(budget: int, longest: int, most: int) -> None:
    stated = packed_shapes(budget, longest)
    assert len(stated) == most
    assert len({tokens for tokens, _, _ in stated}) <= 31
    assert {tokens for tokens, _, _ in stated if tokens >= budget} == {budget}


def test_a_long_stream_has_few_shapes() -> None:
    """100,000 texts of 1 to 256 tokens in 40 windows, whose last batches are of any size."""
    found = {
        batch.shape for seed in range(40) for batch in packed_batches(rows(ragged(2500, seed)), 16384, bucketed=True)
    }
    assert len(found) <= 32


def test_full_batches_have_the_budget() -> None:
    batches = list(packed_batches(rows(ragged(3000)), 16384, bucketed=True))
    assert [len(batch.input_ids) for batch in batches[:-3]] == [16384] * (len(batches) - 3)
    assert sum(len(batch.input_ids) for batch in batches) <= 1.03 * sum(ragged(3000))


@pytest.mark.parametrize("seed", range(10))
def test_a_window_is_few_batches(seed: int) -> None:
    """2048 documents of some 170,000 tokens, where attention does without padding."""
    lengths = np.random.default_rng(seed).lognormal(3.9, 0.75, size=2048).clip(3, 250).astype(int).tolist()
    assert len(list(packed_batches(rows(lengths), 65536, bucketed=True, ragged=True))) <= -(-sum(lengths) // 65536) + 1


@pytest.mark.parametrize("tokens", range(5, 21))
def test_queries_are_hardly_padded(tokens: int) -> None:
    (batch,) = packed_batches(rows([tokens]), 65536, bucketed=True)
    assert len(batch.input_ids) <= 1.25 * tokens
    assert len(batch.cu_seqlens) <= 3


def test_fillers_are_no_longer_than_the_texts() -> None:
    """A model is sure to have positions for these, and not for more."""
    for lengths in streams():
        for batch in packed_batches(rows(lengths), 4096, bucketed=True):
            longest = max(lengths[i] for i in batch.texts)
            assert np.diff(batch.cu_seqlens).max() <= max(longest, 2)


@pytest.mark.parametrize("options", [{"bucketed": True}, {"bucketed": False}, {"bucketed": False, "padded": False}])
def test_what_exactly_fits_is_one_batch(options: dict[str, bool]) -> None:
    """A token more is two; so is a text more than may share a batch."""
    for lengths in ([512, 512], [256] * 4, [16] * 64):
        assert [len(batch.texts) for batch in packed_batches(rows(lengths), 1024, **options)] == [len(lengths)]
        found = [len(batch.texts) for batch in packed_batches(rows([*lengths, 1]), 1024, **options)]
        assert found == [len(lengths), 1]
    most = [len(batch.texts) for batch in packed_batches(rows([16] * 64), 1024, max_texts=24, **options)]
    assert most == [24, 24, 16]


@pytest.mark.parametrize("options", [{"bucketed": True}, {"bucketed": False}, {"bucketed": False, "padded": False}])
def test_longest_first(options: dict[str, bool]) -> None:
    """So that a batch is of texts of about one length, and the most memory is needed at once."""
    lengths = np.random.default_rng(1).permutation(np.arange(1, 400)).tolist()
    laid = [lengths[i] for batch in packed_batches(rows(lengths), 1024, **options) for i in batch.texts]
    assert laid == sorted(lengths, reverse=True)


@pytest.mark.parametrize("options", [{"bucketed": True}, {"bucketed": False}, {"bucketed": False, "padded": False}])
def test_token_types_are_those_of_the_ids(options: dict[str, bool]) -> None:
    lengths = np.random.default_rng(2).integers(1, 60, size=40).tolist()
    types = [[(i + place) % 3 for place in range(n)] for i, n in enumerate(lengths)]
    for batch in packed_batches(rows(lengths), 256, token_types=types, **options):
        assert batch.token_type_ids is not None
        assert len(batch.token_type_ids) == len(batch.input_ids)
        for place, text in enumerate(batch.texts):
            begin, end = batch.cu_seqlens[place : place + 2]
            assert batch.token_type_ids[begin:end].tolist() == types[text]
