"""The engine of decoders, which mlx-lm's code runs on padded blocks."""

from collections.abc import Iterator, Sequence

from mlx_embed.batching import Batch, Shape, padded_batches, padded_shapes
from mlx_embed.engine.graph import GraphEngine


class PaddedEngine(GraphEngine):
    """MLX graphs of blocks of texts, each padded to the longest; see `Engine`."""

    default_budget = 16384
    rehearsed = ()  # mlx-lm's code takes no kernels of ours

    @property
    def name(self) -> str:
        """See `Engine`."""
        return "padded"

    def batches(
        self,
        ids: Sequence[Sequence[int]],
        batch_tokens: int,
        max_texts: int | None = None,
        token_types: Sequence[Sequence[int]] | None = None,
        unseen: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Batch]:
        """See `Engine`; there are no token types here."""
        return padded_batches(ids, batch_tokens, bucketed=self.compiled, max_texts=max_texts)

    def shapes(self, batch_tokens: int, longest: int) -> set[Shape]:
        """Every shape that batches of texts up to `longest` tokens can have where graphs are compiled."""
        return padded_shapes(batch_tokens, longest)
