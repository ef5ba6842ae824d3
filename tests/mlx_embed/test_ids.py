"""Ids: rows that lie end to end, and new ones made of pieces of them."""

import numpy as np
import pytest

from mlx_embed.ids import Ids, ends

ROWS = [[1, 2, 3], [], [4], [5, 6]]


def test_rows() -> None:
    ids = Ids.of(ROWS)
    assert (ids.flat.dtype, ids.offsets.dtype, ids.lengths.dtype) == (np.int32, np.int64, np.int32)
    assert ids.flat.tolist() == [1, 2, 3, 4, 5, 6]
    assert ids.offsets.tolist() == [0, 3, 3, 4, 6]
    assert ids.lengths.tolist() == [3, 0, 1, 2]
    assert ids.tolist() == [row.tolist() for row in ids] == ROWS
    assert [ids[place].tolist() for place in (0, 1, -1)] == [[1, 2, 3], [], [5, 6]]
    assert np.shares_memory(ids[0], ids.flat)
    assert Ids.of(ids) is ids
    assert Ids.of([np.array([7], dtype=np.int64), (8,)]).tolist() == [[7], [8]]
    for place in (4, -5):
        with pytest.raises(IndexError):
            ids[place]


@pytest.mark.parametrize("places", [[], [3, 0], range(1, 4, 2), np.array([2, 2, 1])])
def test_some_rows(places: list[int]) -> None:
    assert Ids.of(ROWS)[places].tolist() == [ROWS[place] for place in places]
    assert Ids.of(ROWS)[1:3].tolist() == ROWS[1:3]


def test_without_an_end() -> None:
    rows = [[1, 9, 2, 9, 9], [], [9], [9, 9, 9], [3], [9, 4], []]
    assert Ids.of(rows).without_end(9).tolist() == [[1, 9, 2], [], [9], [9], [3], [9, 4], []]
    assert Ids.of(rows).without_end(5).tolist() == rows
    assert Ids.of([]).without_end(9).tolist() == []


def test_pieces() -> None:
    ids = Ids.of(ROWS)
    assert ids.pieces(np.array([0, 2, 4]), np.array([2, 2, 6])).tolist() == [[1, 2], [], [5, 6]]
    starts, stops = np.array([[0, 5], [3, 3]]), np.array([[1, 6], [3, 4]])
    assert ids.pieces(starts, stops).tolist() == [[1, 6], [4]]
    none = np.zeros((0, 2), dtype=np.int64)
    assert ids.pieces(none, none).tolist() == []


def test_nothing() -> None:
    assert (Ids.of([]).tolist(), len(Ids.of([])), Ids.of([]).flat.dtype) == ([], 0, np.int32)
    assert Ids.of([[], []]).tolist() == [[], []]
    assert ends([]).tolist() == [0]
