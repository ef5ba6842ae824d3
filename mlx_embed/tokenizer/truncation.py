"""The warning that texts were cut."""

import warnings

import numpy as np
import numpy.typing as npt


class TruncationWarning(UserWarning):
    """Some text was longer than the model takes, and only its beginning was embedded."""


_warned = False


def warn_truncated(counts: npt.NDArray[np.int32], max_length: int) -> None:
    """Warn, once in a process, that texts of more than max_length tokens were cut."""
    global _warned
    cut = int((counts > max_length).sum())
    if cut and not _warned:
        _warned = True
        warnings.warn(
            f"{cut} of {len(counts)} texts are longer than the model's {max_length} tokens (the longest has "
            f"{int(counts.max())}); only {max_length} tokens of each are embedded. encode(..., return_info=True) "
            "tells which. This is said once.",
            TruncationWarning,
            stacklevel=3,
        )
