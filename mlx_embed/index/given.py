"""What a caller gives to an index, as the index takes it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.arguments import numbers, plain_string, require_list, type_name
from mlx_embed.index import rows
from mlx_embed.index.entries import Chunk
from mlx_embed.index.rows import Entry
from mlx_embed.index.segments import lengths_of
from mlx_embed.index.statement import Statement

# Vectors that are looked at together: a file of many rows has hundreds of megabytes of them.
_ROWS = 4096


def strings_of(name: str, given: Any) -> list[str]:
    """Ids or paths to look for; TypeError for no list, or something in it that no text has as its own."""
    require_list(name, given)
    listed = list(given)
    for place, one in enumerate(listed):
        if not isinstance(one, str):
            raise TypeError(f"{name}[{place}] is {type_name(one)}, where a string is needed.")
    return list(map(plain_string, listed))


def entries_of(ids: Sequence[str], texts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None) -> list[Entry]:
    """Texts that are of no file.

    Raises:
        ValueError: lists of different lengths; an id that is there twice; see `rows.entry`.
        TypeError: no lists, or other things in them.
    """
    require_list("ids", ids)
    require_list("texts", texts)
    ids, texts = list(ids), list(texts)
    described = [{}] * len(ids) if metadata is None else list(metadata)
    if not len(ids) == len(texts) == len(described):
        raise ValueError(
            f"There are {len(ids)} ids, {len(texts)} texts and {len(described)} mappings of metadata; give as many of "
            "each."
        )
    entries = [
        rows.entry(name, Chunk(text, "", 0, 0, 0, 0, metadata=about))
        for name, text, about in zip(ids, texts, described, strict=True)
    ]
    require_once([entry.id for entry in entries])
    return entries


def require_once(ids: Sequence[str]) -> None:
    """Raise ValueError for an id that is there twice."""
    if len(set(ids)) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ValueError(f"The id {twice!r} is there twice; every text needs its own.")


def vectors_of(given: Any, count: int, statement: Statement) -> npt.NDArray[np.float32]:
    """Vectors [count, D] as they are stored and asked for: of length 1, where the index compares by cosine.

    Raises:
        ValueError: another shape, or a value that is not finite.
        TypeError: no numbers.
    """
    vectors = np.array(numbers("vectors", given), dtype=np.float32, order="C")
    if vectors.shape != (count, statement.dimension):
        raise ValueError(f"vectors has the shape {vectors.shape}, where [{count}, {statement.dimension}] is needed.")
    for start in range(0, count, _ROWS):
        part = vectors[start : start + _ROWS]
        bad = ~np.isfinite(part).all(axis=1)
        if bad.any():
            raise ValueError(f"vectors[{start + int(np.argmax(bad))}] has a value that is not finite.")
        if statement.similarity == "cosine":
            lengths = lengths_of(part)[:, None]
            scaled = (part / np.where(lengths > 0, lengths, 1)).astype(np.float32)
            # What has length 1 to the last bits is left as it is.
            part[:] = np.where(np.abs(lengths - 1) < 1e-6, part, scaled)
    return vectors
