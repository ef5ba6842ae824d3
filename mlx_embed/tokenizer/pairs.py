"""Pairs of texts to token ids and types, as rerankers take them."""

from collections.abc import Sequence

import tokenizers

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.errors import CheckpointError
from mlx_embed.ids import Ids
from mlx_embed.tokenizer import files
from mlx_embed.tokenizer.panics import is_the_librarys
from mlx_embed.tokenizer.surrogates import well_formed


class PairTokenizer:
    """A checkpoint's tokenizer for pairs of texts, which are cut at the longer one until both fit.

    Attributes:
        token_types: whether the model is told which of a pair's texts a token is of.
    """

    def __init__(self, checkpoint: Checkpoint, max_length: int) -> None:
        """Read tokenizer.json or vocabulary files; CheckpointError where they are missing, broken, or leave no room."""
        source = files.read(checkpoint)
        self.max_length = max_length
        self._tokenizer = source.tokenizer
        self.token_types = source.token_types
        self._special = checkpoint.special_tokens
        if max_length <= (self._tokenizer.num_special_tokens_to_add(is_pair=True) if self._special else 0):
            raise CheckpointError(f"A maximum of {max_length} tokens leaves no room for texts beside special tokens.")
        self._tokenizer.enable_truncation(max_length, direction=source.truncation_side)
        self._folder = checkpoint.transformer
        self([("a", "b")])  # a broken tokenizer fails here rather than at the first question

    def beside(self, prompt: str) -> int:
        """How many tokens there are with a pair that are not of its texts."""
        special = int(self._tokenizer.num_special_tokens_to_add(is_pair=True)) if self._special else 0
        return special + (len(self._tokenizer.encode(prompt, add_special_tokens=False)) if prompt else 0)

    @property
    def library(self) -> tokenizers.Tokenizer:
        """The library's own tokenizer, which cuts at max_length."""
        return self._tokenizer

    def __call__(self, pairs: Sequence[tuple[str, str]], prompt: str = "") -> tuple[Ids, Ids]:
        """The token ids of each pair, special tokens included, and the tokens' types, 0 or 1.

        `prompt` goes before the first text of each.
        """
        if prompt:
            pairs = [(prompt + query, document) for query, document in pairs]
        try:
            encodings = self._tokenizer.encode_batch(list(pairs), add_special_tokens=self._special)
        except TypeError:  # a lone surrogate, which UTF-8 cannot carry
            formed = [(well_formed(a), well_formed(b)) for a, b in pairs]
            encodings = self._tokenizer.encode_batch(formed, add_special_tokens=self._special)
        except BaseException as error:
            if not is_the_librarys(error):
                raise
            raise CheckpointError(f"The tokenizer of {self._folder} is broken: {error}.") from error
        return Ids.of([x.ids or [0] for x in encodings]), Ids.of([x.type_ids or [0] for x in encodings])
