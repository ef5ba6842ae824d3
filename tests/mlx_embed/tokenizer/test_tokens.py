"""What becomes of whole ids: cut, split, and laid out with special tokens around them."""

import pytest

from mlx_embed.ids import Ids
from mlx_embed.tokenizer.tokens import Encoded, Frame

FRAME = Frame((101, 102), (103,))


def encoded(*contents: list[int]) -> Encoded:
    return Encoded(Ids.of([[*FRAME.before, *content, *FRAME.after] for content in contents]))


@pytest.mark.parametrize(("left", "middle"), [(False, [1, 2]), (True, [4, 5])])
def test_cut(left: bool, middle: list[int]) -> None:
    found = FRAME.cut(encoded([1, 2, 3, 4, 5], [], [6]), 5, left)
    assert found.ids.tolist() == [[101, 102, *middle, 103], [101, 102, 103], [101, 102, 6, 103]]
    assert (found.counts.tolist(), found.chunks.tolist(), found.weights.tolist()) == ([8, 3, 4], [1, 1, 1], [1, 1, 1])


def test_split() -> None:
    """Chunks of three tokens behind a prompt of one, of which each shares one with the chunk before."""
    found = FRAME.split(encoded([9, 1, 2, 3, 4, 5, 6], [9, 1], [9]), 7, 1, 1)
    rows = [[9, 1, 2, 3], [9, 3, 4, 5], [9, 5, 6], [9, 1], [9]]
    assert found.ids.tolist() == [[101, 102, *row, 103] for row in rows]
    assert (found.counts.tolist(), found.chunks.tolist()) == ([10, 5, 4], [3, 1, 1])
    assert found.weights.tolist() == [3, 3, 2, 1, 0]


def test_a_prompt_that_has_fewer_tokens_with_a_text_than_alone() -> None:
    found = FRAME.split(encoded([1], [2, 3, 4, 5]), 7, 3, 0)
    assert found.ids.tolist() == [[101, 102, 1, 103], [101, 102, 2, 3, 4, 5, 103]]


def test_some_texts() -> None:
    assert encoded([1], [2], [3]).take([2, 0]).ids.tolist() == encoded([3], [1]).ids.tolist()
