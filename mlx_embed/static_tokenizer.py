"""The tokenizer of static models, for which a text may be without any tokens."""

from dataclasses import replace
from typing import Any

import numpy as np

from mlx_embed.architectures import static
from mlx_embed.checkpoint import Checkpoint
from mlx_embed.tokenizer import Tokenizer, Tokens


class StaticTokenizer(Tokenizer):
    """A tokenizer that gives no ids of a text without tokens, where an encoder needs at least one to compute with."""

    def tokens(self, *arguments: Any, **options: Any) -> Tokens:
        """See `Tokenizer`."""
        found = super().tokens(*arguments, **options)
        empty = np.repeat(found.counts == 0, found.chunks).tolist()
        if not any(empty):
            return found
        return replace(found, ids=[[] if none else row for none, row in zip(empty, found.ids, strict=True)])


def tokenizer_of(checkpoint: Checkpoint, max_length: int) -> Tokenizer:
    """The tokenizer of an embedding model's checkpoint, which cuts texts at so many tokens; errors as `Tokenizer`."""
    kind = StaticTokenizer if isinstance(checkpoint.encoder_config, static.Config) else Tokenizer
    return kind(checkpoint, max_length)
