"""The warning that texts were cut."""

import sys
import warnings
from itertools import count

import numpy as np
import numpy.typing as npt


class TruncationWarning(UserWarning):
    """Some text was longer than the model takes, and only its beginning was embedded."""


def warn_truncated(counts: npt.NDArray[np.int32], max_length: int) -> bool:
    """Warn, at the line that called this package, where texts have more than max_length tokens; whether it did."""
    cut = int((counts > max_length).sum())
    if cut:
        warnings.warn(
            f"{cut} of {len(counts)} texts are longer than the model's {max_length} tokens (the longest has "
            f"{int(counts.max())}); only {max_length} tokens of each were embedded. "
            'long_text="mean_of_chunks" embeds all of them, long_text="error" refuses them, and return_info=True '
            "tells which they are. This is said once for a model.",
            TruncationWarning,
            stacklevel=_callers_level(),
        )
    return cut > 0


def _callers_level() -> int:
    """The stack level, as seen from `warn_truncated`, of the first frame outside this package."""
    package = __name__.split(".")[0]
    for level in count(1):  # frame 1 from here is warn_truncated itself
        try:
            frame = sys._getframe(level)
        except ValueError:  # everything is inside: nobody else to name
            return 1
        if frame.f_globals.get("__name__", "").split(".")[0] != package:
            return level
    return 1
