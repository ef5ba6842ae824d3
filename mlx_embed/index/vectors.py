"""The vectors of texts that are to be stored, of which as few as can be are computed."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mlx_embed.index import rows
from mlx_embed.index.rows import Entry
from mlx_embed.index.store import Store

Float32 = npt.NDArray[np.float32]


def vectors_for(store: Store, entries: Sequence[Entry], encode: Callable[[list[str]], Float32]) -> Float32:
    """[N, D]: zero of blank texts, copied where the index has the same text, else from `encode`, each text once."""
    vectors = np.zeros((len(entries), store.statement.dimension), dtype=np.float32)
    digests = [entry.digest for entry in entries]
    with store.reading() as (connection, view):
        known = rows.numbers_of(connection, "digest", list(dict.fromkeys(digests)))
        copied = [i for i, each in enumerate(digests) if each in known]
        if copied:
            vectors[copied] = view.vectors(np.array([known[digests[i]][0] for i in copied], dtype=np.int64))
    first: dict[bytes, int] = {}
    for i, (digest, entry) in enumerate(zip(digests, entries, strict=True)):
        if digest not in known and entry.chunk.text.strip():
            first.setdefault(digest, i)
    if first:
        fresh = encode([entries[i].chunk.text for i in first.values()])
        place = {digest: i for i, digest in enumerate(first)}
        embedded = [i for i, digest in enumerate(digests) if digest in place]
        vectors[embedded] = fresh[[place[digests[i]] for i in embedded]]
    return vectors
