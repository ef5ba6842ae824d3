"""Compaction: segments without the rows of what was deleted, and a database without its unused pages."""

import numpy as np

from mlx_embed.index.segments import BLOCK_ROWS, EXACT, check
from mlx_embed.index.store import Store

# Rows that are copied at a time.
_AT_ONCE = 16 * BLOCK_ROWS


def compact(store: Store) -> None:
    """Copy what is there into new segments, name these in one commit, and remove the old ones.

    Segments before the first that has lost a row stay as they are. Readers go on, on the old files while they have
    them.

    Raises:
        StoreLockedError, StoreError: as `Store.writing`.
        StoreCorruptError: rows that are not as they were written; nothing is changed.
    """
    store.acquire()
    with store.reading() as (_, view):
        lost = [i for i, segment in enumerate(view.segments) if segment.dead.any()]
    if lost:
        with store.writing() as transaction:
            old = transaction.view.segments[lost[0] :]
            transaction.forget([segment.number for segment in old])
            transaction.new_segment()
            for segment in old:
                check([segment.columns[EXACT]])
                kept = segment.places(~segment.dead)
                for start in range(0, len(kept), _AT_ONCE):
                    places = kept[start : start + _AT_ONCE]
                    transaction.append(np.ascontiguousarray(segment.exact[places]), segment.numbers[places])
    store.tidy()
    store.vacuum()
