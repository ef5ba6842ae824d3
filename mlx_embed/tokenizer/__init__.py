"""Texts to token ids: prompts, truncation with counts, any Unicode at all."""

import os
from collections.abc import Sequence
from copy import copy
from typing import Any

import tokenizers
from tokenizers import models

from mlx_embed.checkpoint import Checkpoint
from mlx_embed.errors import CheckpointError
from mlx_embed.ids import Ids
from mlx_embed.tokenizer import beginnings, files, markers
from mlx_embed.tokenizer.fast import FastTokenizer
from mlx_embed.tokenizer.panics import is_the_librarys
from mlx_embed.tokenizer.surrogates import well_formed
from mlx_embed.tokenizer.tokens import Encoded, Frame, Tokens
from mlx_embed.tokenizer.truncation import TruncationWarning, warn_truncated

__all__ = ["Encoded", "Tokenizer", "Tokens", "TruncationWarning", "warn_truncated"]


def _without_threads() -> None:
    """In a forked child the library has no threads, and with TOKENIZERS_PARALLELISM set it would wait for them."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


os.register_at_fork(after_in_child=_without_threads)


class Tokenizer:
    """A checkpoint's tokenizer with truncation, and without padding.

    Attributes:
        max_length: tokens at which texts are cut, special tokens included.
        cut_left: whether texts lose their beginnings rather than their ends.
        token_types: whether the model is told which of a pair's texts a token is of.
        fast: what makes the library's ids in less time, where it can; None leaves all to the library.
    """

    max_length: int
    cut_left: bool
    token_types: bool
    fast: FastTokenizer | None

    def __init__(self, checkpoint: Checkpoint, max_length: int) -> None:
        """Read tokenizer.json or vocabulary files; CheckpointError where they are missing, broken, or leave no room."""
        self._folder = checkpoint.transformer
        source = files.read(checkpoint)
        self._tokenizer = source.tokenizer
        if checkpoint.multi_vector is not None:
            markers.keep_whole(source.tokenizer, checkpoint.multi_vector.markers)
        self.cut_left = source.truncation_side == "left"
        self.token_types = source.token_types
        self._special = checkpoint.special_tokens
        self._frame = self._special_tokens() if self._special else Frame()
        self._breaks_at_spaces = beginnings.breaks_at_spaces(source.tokenizer)
        self.fast = FastTokenizer(source.tokenizer, self._frame, self._folder)
        limit = checkpoint.encoder_config.max_tokens
        lengths = {task: min(number, limit) for task, number in checkpoint.task_lengths.items()}
        self._of_tasks = {task: self._cut_at(number) for task, number in lengths.items()}
        self.max_length = max_length
        for number in (max_length, *lengths.values()):
            if number < len(self._frame) + 1:
                raise CheckpointError(
                    f"A maximum of {number} tokens leaves no room for text beside the tokenizer's "
                    f"{len(self._frame)} special tokens."
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
        return self.tokens(self.encode(texts, prompt, cuts=overlap is None), prompt, overlap)

    def encode(self, texts: Sequence[str], prompt: str = "", *, whole: bool = True, cuts: bool = True) -> Encoded:
        """All tokens of each `prompt + text`, on all cores and without Python's lock.

        Unless `whole`, what is behind the first max_length tokens of a text need not be read. `cuts` says that texts
        are to be cut at their end, which some tokenizers do before they read one.
        """
        contents = [prompt + text for text in texts] if prompt else list(texts)
        if whole or self.cut_left or not self._breaks_at_spaces:
            return Encoded(self._made(contents))
        begun = beginnings.of(contents, self.max_length)
        encoded = Encoded(self._made(begun), whole=begun == contents)
        if not encoded.whole:
            # A beginning of many spaces, or long words, may have too few tokens to tell where the text is cut.
            short = (encoded.lengths <= self.max_length).tolist()
            if any(begun[place] != contents[place] for place, found in enumerate(short) if found):
                chosen = [whole if found else part for whole, part, found in zip(contents, begun, short, strict=True)]
                encoded = Encoded(self._made(chosen), whole=chosen == contents)
        return encoded

    def beginning(self, text: str, tokens: int) -> str:
        """A beginning of a text that most likely has more than so many tokens, all of them the whole text's too.

        It is the text where that is cut on the left, or no beginning tells its tokens.
        """
        return text if self.cut_left or not self._breaks_at_spaces else beginnings.of([text], tokens)[0]

    def tokens(
        self, encoded: Encoded, prompt: str = "", overlap: int | None = None, *, cut_left: bool | None = None
    ) -> Tokens:
        """The token ids of encoded texts, cut or split as by `__call__`; cut_left=None cuts at the checkpoint's end."""
        if overlap is None:
            return self._frame.cut(encoded, self.max_length, self.cut_left if cut_left is None else cut_left)
        head = max(self.prompt_length(prompt) - len(self._frame.before), 0)
        return self._frame.split(encoded, self.max_length, head, overlap)

    def room(self, prompt: str = "") -> int:
        """How many tokens of a text fit into max_length beside special tokens and a prompt."""
        return self.max_length - len(self._frame.after) - (self.prompt_length(prompt) or len(self._frame.before))

    def prompt_length(self, prompt: str) -> int:
        """How many leading tokens of a text are the prompt's, special tokens in front included."""
        return int(self.encode([prompt], cuts=False).lengths[0]) - len(self._frame.after) if prompt else 0

    def pooled_from(self, prompt: str) -> int:
        """The place of a text's first token that is pooled where its prompt is not.

        Of a prompt that leaves no room it is that of the special tokens behind, as in sentence-transformers.
        """
        return min(self.prompt_length(prompt), self.max_length - len(self._frame.after))

    def blank_behind(self, skip: int) -> bool:
        """Whether a text may have no token behind its first `skip`, those of a prompt and of what is in front of it."""
        return not self._frame.after and (skip > 0 or not self._frame.before)

    def max_id(self) -> int:
        """The largest id that can come out."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True).values()
        return max(*self._frame.before, *self._frame.after, *vocabulary, 0)

    def _made(self, contents: list[str]) -> Ids | list[tokenizers.Encoding]:
        """What the fast tokenizer makes of texts, or the library."""
        try:
            found = None if self.fast is None else self.fast(contents)
            if found is not None:
                return found
            return self._tokenizer.encode_batch_fast(contents, add_special_tokens=self._special)
        except (TypeError, UnicodeEncodeError):  # a lone surrogate, which UTF-8 cannot carry
            return self._made([well_formed(text) for text in contents])
        except BaseException as error:
            if isinstance(error, Exception) or not is_the_librarys(error):
                raise
            raise CheckpointError(f"The tokenizer of {self._folder} is broken: {error}.") from error

    def _special_tokens(self) -> Frame:
        try:
            self._tokenizer.encode("a")
            return framed(self._tokenizer)
        except CheckpointError:
            raise
        except BaseException as error:
            if not is_the_librarys(error):
                raise
            raise CheckpointError(f"The tokenizer of {self._folder} cannot tokenize a letter: {error}") from error


def framed(library: tokenizers.Tokenizer) -> Frame:
    """What a tokenizer's post-processor puts before and after a text.

    Raises:
        CheckpointError: it changes the text's own tokens.
    """
    text = 2**32 - 1  # the id of a token that no vocabulary has
    any_text: Any = tokenizers.Tokenizer(models.WordLevel({"a": text}, unk_token="a"))
    any_text.post_processor = library.post_processor
    whole = any_text.encode("a").ids
    if whole.count(text) != 1:
        raise CheckpointError("tokenizer.json has a post-processor that changes the text's own tokens.")
    place = whole.index(text)
    return Frame(tuple(whole[:place]), tuple(whole[place + 1 :]))
