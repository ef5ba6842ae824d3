"""Pairs of texts to token ids and types, as rerankers take them."""

from collections.abc import Sequence

import tokenizers

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.errors import CheckpointError
from mlx_embed.tokenizer import files
from mlx_embed.tokenizer.surrogates import well_formed


class PairTokenizer:
    """A checkpoint's tokenizer for pairs of texts, which are cut at the longer one until both fit."""

    def __init__(self, checkpoint: Checkpoint, max_length: int) -> None:
        """Read tokenizer.json or vocabulary files; CheckpointError where they are missing, broken, or leave no room."""
        self._tokenizer = files.read(checkpoint)
        self.max_length = max_length
        if max_length <= self._tokenizer.num_special_tokens_to_add(is_pair=True):
            raise CheckpointError(f"A maximum of {max_length} tokens leaves no room for texts beside special tokens.")
        self._tokenizer.enable_truncation(max_length, direction=checkpoint.truncation_side)

    @property
    def library(self) -> tokenizers.Tokenizer:
        """The library's own tokenizer, which cuts at max_length."""
        return self._tokenizer

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]]]:
        """The token ids of each pair, special tokens included, and the tokens' types, 0 or 1."""
        try:
            encodings = self._tokenizer.encode_batch(list(pairs))
        except TypeError:  # a lone surrogate, which UTF-8 cannot carry
            encodings = self._tokenizer.encode_batch([(well_formed(a), well_formed(b)) for a, b in pairs])
        return [x.ids or [0] for x in encodings], [x.type_ids or [0] for x in encodings]
