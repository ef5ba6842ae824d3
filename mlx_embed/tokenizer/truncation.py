"""The warning that texts were cut."""

import numpy as np
import numpy.typing as npt

from mlx_embed.errors import warn


class TruncationWarning(UserWarning):
    """Some text was longer than the model takes, and only its beginning was embedded.

    Attributes:
        found: that, in a sentence, without what an option of a method could do about it.
    """

    def __init__(self, found: str, advice: str = "") -> None:
        super().__init__(f"{found} {advice}" if advice else found)
        self.found = found


def warn_truncated(counts: npt.NDArray[np.int32], max_length: int, advice: str, whole: bool = True) -> bool:
    """Warn, at the line that called this package, where texts have more than max_length tokens; whether it did.

    `advice` says what the method that was called has for them. Unless `whole`, counts of such texts may be too small.
    """
    cut = int(np.count_nonzero(counts > max_length))
    if cut:
        warn(
            TruncationWarning(
                f"{cut} of {len(counts)} texts are longer than the model's {max_length} tokens (the longest has "
                f"{int(counts.max())}{'' if whole else ' or more'}); only {max_length} tokens of each were embedded. "
                "This is said once for a model.",
                advice,
            )
        )
    return cut > 0
