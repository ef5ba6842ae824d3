"""The warning that texts were cut."""

import numpy as np
import numpy.typing as npt

from mlx_embed.errors import warn


class TruncationWarning(UserWarning):
    """Some text was longer than the model takes, and only its beginning was embedded."""


def warn_truncated(counts: npt.NDArray[np.int32], max_length: int, whole: bool = True) -> bool:
    """Warn, at the line that called this package, where texts have more than max_length tokens; whether it did.

    Unless `whole`, counts of such texts may be too small.
    """
    cut = int(np.count_nonzero(counts > max_length))
    if cut:
        warn(
            f"{cut} of {len(counts)} texts are longer than the model's {max_length} tokens (the longest has "
            f"{int(counts.max())}{'' if whole else ' or more'}); only {max_length} tokens of each were embedded. "
            'long_text="mean_of_chunks" embeds all of them, long_text="error" refuses them, and return_info=True '
            "tells which they are. This is said once for a model.",
            TruncationWarning,
        )
    return cut > 0
