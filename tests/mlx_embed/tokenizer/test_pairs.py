"""Pairs of texts to ids and types, against the tokenizers library's own truncation."""

import pytest

from mlx_embed import CheckpointError
from mlx_embed.tokenizer.pairs import PairTokenizer
from tests.mlx_embed.tokenizer.checkpoints import library, lists, read


@pytest.mark.parametrize("side", ["right", "left"])
def test_pairs_are_cut_as_the_library_does(side: str) -> None:
    expected = library("tiny-bert")
    expected.enable_truncation(8, direction=side)
    pairs = [("the wing", "flow"), ("the wing flow heat layer", "a"), ("a", "the wing flow heat layer"), ("", "")]
    ids, types = lists(PairTokenizer(read(tokenizer={"truncation_side": side}), 8)(pairs))
    assert ids == [encoding.ids for encoding in expected.encode_batch(pairs)]
    assert types == [encoding.type_ids for encoding in expected.encode_batch(pairs)]
    assert max(map(len, ids)) == 8
    tokenizer = PairTokenizer(read(), 8)
    assert lists(tokenizer([("\ud800", "a")])) == lists(tokenizer([("\ufffd", "a")]))
    with pytest.raises(CheckpointError, match="A maximum of 3 tokens leaves no room"):
        PairTokenizer(read(), 3)
