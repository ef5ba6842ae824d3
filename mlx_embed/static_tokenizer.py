"""The tokenizer of static models, some of which cut a text before it is read."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.tokenizer import Encoded, Tokenizer, Tokens


class StaticTokenizer(Tokenizer):
    """A tokenizer whose texts are cut at so many characters for each token that they may have, before they are read.

    That is model2vec's rule.
    """

    def __init__(self, checkpoint: Checkpoint, max_length: int) -> None:
        super().__init__(checkpoint, max_length)
        self._token_characters = checkpoint.token_characters

    def encode(self, texts: Sequence[str], prompt: str = "", *, whole: bool = True, cuts: bool = True) -> Encoded:
        """See `Tokenizer`."""
        if self._token_characters is None or not cuts:
            return super().encode(texts, prompt, whole=whole, cuts=cuts)
        most = max(self._token_characters * self.max_length - len(prompt), 0)
        encoded = super().encode([text[:most] for text in texts], prompt, whole=whole)
        encoded.beyond = np.array([len(text) > most for text in texts], dtype=np.bool_)
        return encoded

    def tokens(self, encoded: Encoded, *arguments: Any, **options: Any) -> Tokens:
        """See `Tokenizer`."""
        found = super().tokens(encoded, *arguments, **options)
        if encoded.beyond is not None and encoded.beyond.any():
            counts = np.where(encoded.beyond, np.maximum(found.counts, self.max_length + 1), found.counts)
            return found._replace(counts=counts.astype(np.int32), whole=False)
        return found


def tokenizer_of(checkpoint: Checkpoint, max_length: int) -> Tokenizer:
    """The tokenizer of an embedding model's checkpoint, which cuts texts at so many tokens; errors as `Tokenizer`."""
    kind = StaticTokenizer if checkpoint.architecture.LAYOUT == "table" else Tokenizer
    return kind(checkpoint, max_length)
