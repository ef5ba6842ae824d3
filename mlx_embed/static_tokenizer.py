"""The tokenizer of static models, for which a text may be without any tokens."""

from typing import Any

import numpy as np

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.ids import Ids, ends
from mlx_embed.tokenizer import Tokenizer, Tokens


class StaticTokenizer(Tokenizer):
    """A tokenizer that gives no ids of a text without tokens, where an encoder needs at least one to compute with."""

    def tokens(self, *arguments: Any, **options: Any) -> Tokens:
        """See `Tokenizer`."""
        found = super().tokens(*arguments, **options)
        empty = np.repeat(found.counts == 0, found.chunks)
        if not empty.any():
            return found
        flat = np.delete(found.ids.flat, found.ids.offsets[:-1][empty])
        return found._replace(ids=Ids(flat, ends(np.where(empty, 0, found.ids.lengths))))


def tokenizer_of(checkpoint: Checkpoint, max_length: int) -> Tokenizer:
    """The tokenizer of an embedding model's checkpoint, which cuts texts at so many tokens; errors as `Tokenizer`."""
    kind = StaticTokenizer if checkpoint.architecture.LAYOUT == "table" else Tokenizer
    return kind(checkpoint, max_length)
