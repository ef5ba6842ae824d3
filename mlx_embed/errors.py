"""The exceptions of mlx_embed: each message says what was found and what to do about it. And how it warns."""

import sys
import warnings
from itertools import count


class MLXEmbedError(Exception):
    """Base of the errors that mlx_embed raises on its own account."""


class ModelNotFoundError(MLXEmbedError):
    """A model name that is no local folder and cannot be had from the hub.

    Attributes:
        not_reached: whether the hub was not asked, or did not answer.
    """

    def __init__(self, message: str, *, not_reached: bool = False) -> None:
        super().__init__(message)
        self.not_reached = not_reached


class CheckpointError(MLXEmbedError):
    """A checkpoint folder with a missing, broken or inconsistent file."""


class UnsupportedModelError(CheckpointError):
    """A sound checkpoint of a kind that mlx_embed does not implement."""


class StoreError(MLXEmbedError):
    """An index that cannot be used as it is wanted: a missing one, a full disk, a folder that is not to be written."""


class StoreLockedError(StoreError):
    """Another process, which the message names, is writing to the index."""


class StoreMismatchError(StoreError):
    """An index of another model, another prompt, another chunker, or another version of the format."""


class StoreCorruptError(StoreError):
    """A file of an index, which the message names, that is not as it was written."""


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called this package, wherever in it this is found out; a Warning has its own category."""
    warnings.warn(message, category, stacklevel=_callers_level())


def _callers_level() -> int:
    """The stack level, as seen from `warn`, of the first frame outside this package."""
    package = __name__.split(".")[0]
    for level in count(1):  # frame 1 from here is `warn` itself
        try:
            frame = sys._getframe(level)
        except ValueError:  # everything is inside: nobody else to name
            return 1
        if frame.f_globals.get("__name__", "").split(".")[0] != package:
            return level
    return 1
