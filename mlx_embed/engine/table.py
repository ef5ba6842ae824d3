"""The engine of static models: rows of a table, averaged by the CPU's kernels."""

from collections.abc import Iterator, Sequence

import numpy as np

from mlx_embed.batching import Batch
from mlx_embed.engine.device import checked_budget
from mlx_embed.engine.native import NativeEngine
from mlx_embed.ids import Ids

# All that a batch has beside its vectors is ids, and each call costs as much as some hundred tokens.
BATCH_TOKENS = 2**20


class TableEngine(NativeEngine):
    """Runs a static model; see `Engine`. Texts stay in their order, since none waits for a longer one."""

    def budget(self, batch_tokens: int | None) -> int:
        """See `Engine`."""
        return checked_budget(batch_tokens, BATCH_TOKENS)

    def batches(
        self,
        ids: Sequence[Sequence[int]],
        batch_tokens: int,
        max_texts: int | None = None,
        token_types: Sequence[Sequence[int]] | None = None,
        unseen: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Batch]:
        """See `Engine`; tokens have no types here, and none attends to another."""
        ids = Ids.of(ids)
        ends, flat = ids.offsets[1:], ids.flat
        first, start = 0, 0
        while first < len(ends):
            last = max(int(np.searchsorted(ends, start + batch_tokens, side="right")), first + 1)
            last = last if max_texts is None else min(last, first + max_texts)
            cu_seqlens = np.concatenate([[0], ends[first:last] - start]).astype(np.int32)
            texts = np.arange(first, last, dtype=np.int32)
            longest = int(np.diff(cu_seqlens).max())
            yield Batch(texts, flat[start : ends[last - 1]], cu_seqlens, longest, of=len(ends))
            first, start = last, int(ends[last - 1])
