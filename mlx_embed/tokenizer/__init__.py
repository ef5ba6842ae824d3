"""Texts to token ids, over the `tokenizers` library: prompts, truncation with counts, any Unicode at all."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tokenizers

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.errors import CheckpointError
from mlx_embed.tokenizer import files
from mlx_embed.tokenizer.panics import is_the_librarys
from mlx_embed.tokenizer.surrogates import well_formed
from mlx_embed.tokenizer.truncation import TruncationWarning, warn_truncated

__all__ = ["Tokenizer", "Tokens", "TruncationWarning", "warn_truncated"]


@dataclass(frozen=True)
class Tokens:
    """The token ids of some texts, and how long the texts were.

    Attributes:
        ids: one list a text, special tokens included, none longer than max_length; one a chunk, where texts are split.
        counts: int32 [n], each text's tokens, special ones included, before truncation or splitting.
        chunks: int32 [n], the lists of each text.
        weights: float32, one a list: its tokens without special ones and prompt.
    """

    ids: list[list[int]]
    counts: npt.NDArray[np.int32]
    chunks: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


class Tokenizer:
    """A checkpoint's tokenizer with truncation, and without padding.

    Attributes:
        max_length: tokens at which texts are cut, special tokens included.
    """

    max_length: int

    def __init__(self, checkpoint: Checkpoint, max_length: int) -> None:
        """Read tokenizer.json or vocabulary files; CheckpointError where they are missing, broken, or leave no room."""
        self._folder = checkpoint.transformer
        source = files.read(checkpoint)
        self._tokenizer = source.tokenizer
        self._cut_left = source.truncation_side == "left"
        self._prefix, self._suffix = self._special_tokens() if checkpoint.special_tokens else ([], [])
        limit = checkpoint.encoder_config.max_tokens
        lengths = {task: min(number, limit) for task, number in checkpoint.task_lengths.items()}
        self._of_tasks = {task: self._cut_at(number) for task, number in lengths.items()}
        self.max_length = max_length
        for number in (max_length, *lengths.values()):
            if number < len(self._prefix) + len(self._suffix) + 1:
                raise CheckpointError(
                    f"A maximum of {number} tokens leaves no room for text beside the tokenizer's "
                    f"{len(self._prefix) + len(self._suffix)} special tokens."
                )

    def for_task(self, task: str | None) -> "Tokenizer":
        """The tokenizer that cuts a "query" or a "document" where the checkpoint has a length for them; else itself."""
        return self._of_tasks.get(task, self) if task is not None else self

    def _cut_at(self, max_length: int) -> "Tokenizer":
        other = copy(self)
        other.max_length = max_length
        return other

    @property
    def library(self) -> tokenizers.Tokenizer:
        """The library's own tokenizer, which neither pads nor cuts."""
        return self._tokenizer

    def __call__(self, texts: Sequence[str], prompt: str = "", overlap: int | None = None) -> Tokens:
        """Token ids of each `prompt + text`, cut to max_length.

        With `overlap`, a longer text is split instead, into chunks that share so many tokens with the one before, each
        with the prompt in front.
        """
        return self.tokens(self.encode(texts, prompt), prompt, overlap)

    def encode(self, texts: Sequence[str], prompt: str = "") -> list[tokenizers.Encoding]:
        """What the library makes of each `prompt + text`, on all cores and without Python's lock."""
        contents = [prompt + text for text in texts] if prompt else list(texts)
        try:
            return self._tokenizer.encode_batch_fast(contents, add_special_tokens=False)
        except TypeError:  # a lone surrogate, which UTF-8 cannot carry
            return self._tokenizer.encode_batch_fast([well_formed(t) for t in contents], add_special_tokens=False)
        except BaseException as error:
            if isinstance(error, Exception) or not is_the_librarys(error):
                raise
            raise CheckpointError(f"The tokenizer of {self._folder} is broken: {error}.") from error

    def counts(self, encodings: list[tokenizers.Encoding]) -> npt.NDArray[np.int32]:
        """Each text's tokens, special ones included, before truncation or splitting: int32 [n]."""
        special = len(self._prefix) + len(self._suffix)
        return np.fromiter((len(encoding) + special for encoding in encodings), dtype=np.int32, count=len(encodings))

    def tokens(
        self,
        encodings: list[tokenizers.Encoding],
        prompt: str = "",
        overlap: int | None = None,
        *,
        cut_left: bool | None = None,
    ) -> Tokens:
        """The token ids of encoded texts, cut or split as by `__call__`; cut_left=None cuts at the checkpoint's end."""
        cut_left = self._cut_left if cut_left is None else cut_left
        contents = [encoding.ids for encoding in encodings]
        if overlap is None:
            room = self.max_length - len(self._prefix) - len(self._suffix)
            rows = [[_cut(content, room, cut_left)] for content in contents]
            head = 0
        else:
            head = max(self.prompt_length(prompt) - len(self._prefix), 0)
            rows = [self._split(content, head, overlap) for content in contents]
        ids = [self._prefix + part + self._suffix for row in rows for part in row]
        return Tokens(
            [row or [0] for row in ids],
            self.counts(encodings),
            np.fromiter((len(row) for row in rows), dtype=np.int32, count=len(rows)),
            np.array([len(part) - head for row in rows for part in row], dtype=np.float32),
        )

    def room(self, prompt: str = "") -> int:
        """How many tokens of a text fit into max_length beside special tokens and a prompt."""
        return self.max_length - len(self._suffix) - (self.prompt_length(prompt) or len(self._prefix))

    def prompt_length(self, prompt: str) -> int:
        """How many leading tokens of a text are the prompt's, special tokens in front included."""
        return len(self._prefix) + len(self.encode([prompt])[0]) if prompt else 0

    def max_id(self) -> int:
        """The largest id that can come out."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True).values()
        return max(*self._prefix, *self._suffix, *vocabulary, 0)

    def _split(self, content: list[int], head: int, overlap: int) -> list[list[int]]:
        """Windows of a text's tokens behind its first `head`, a prompt's, which every window gets."""
        room = self.max_length - len(self._prefix) - len(self._suffix) - head
        last = max(len(content) - head - room, 0)
        starts = range(head, head + last + room - overlap, room - overlap)
        return [content[:head] + content[start : start + room] for start in starts]

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """What the post-processor puts before and after a text."""
        try:
            plain = self._tokenizer.encode("a", add_special_tokens=False).ids
            whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        except BaseException as error:
            if not is_the_librarys(error):
                raise
            raise CheckpointError(f"The tokenizer of {self._folder} cannot tokenize a letter: {error}") from error
        extra = len(whole) - len(plain)
        for before in range(extra + 1):
            if whole[before : before + len(plain)] == plain:
                return whole[:before], whole[before + len(plain) :]
        raise CheckpointError("tokenizer.json has a post-processor that changes the text's own tokens.")


def _cut(content: list[int], room: int, left: bool) -> list[int]:
    if len(content) <= room:
        return content
    return content[len(content) - room :] if left else content[:room]
