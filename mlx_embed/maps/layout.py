"""Vectors laid out in two dimensions by PaCMAP, which keeps neighbours together and far things apart.

Wang, Huang, Rudin, Shaposhnik: Understanding How Dimension Reduction Tools Work, 2021 (https://arxiv.org/abs/2012.04456).
"""

import logging
import warnings

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float32]
# PaCMAP takes ten neighbours of each point, and samples others; fewer texts than this are laid out by their axes alone.
LEAST = 40
SEED = 0


def require() -> None:
    """Raise ImportError where vectors cannot be laid out."""
    try:
        import pacmap  # noqa: F401
    except ImportError as error:
        raise ImportError('A map needs PaCMAP: pip install ".[map]" in a clone of mlx-embed') from error


def laid_out(vectors: npt.NDArray[np.float32]) -> Points:
    """Places [N, 2] of vectors [N, D], within 0..1 on both axes; alike vectors are near one another.

    Vectors are compared by direction. The same vectors give the same places.

    Raises:
        ImportError: the extra `map` is not installed.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    places = _by_axes(unit) if len(unit) < LEAST else _by_neighbours(unit)
    low, high = places.min(axis=0), places.max(axis=0)
    # One scale for both axes, so that distances stay what they are.
    extent = float((high - low).max())
    middle = places - (low + high) / 2
    # Less than this is what rounding leaves of vectors that are all alike.
    return (middle / extent if extent > 1e-5 else 0 * middle).astype(np.float32) + np.float32(0.5)


def _by_axes(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The first two principal components."""
    centred = unit - unit.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(unit), 2), dtype=np.float32)
    places[:, : left.shape[1]] = (left * values)[:, :2]
    return places


def _by_neighbours(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    require()
    import pacmap

    # It warns that it was given a seed, and numba of what it makes of PaCMAP's code.
    logging.getLogger("pacmap").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: npt.NDArray[np.float32] = pacmap.PaCMAP(n_components=2, random_state=SEED).fit_transform(unit)
    return found
