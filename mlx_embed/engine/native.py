"""The engine of the native CPU kernels, which compute at once and in the caller's thread."""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from custom_kernels import accelerate, cpu
from custom_kernels.arrays import spelled
from mlx_embed.architectures.ops import native
from mlx_embed.architectures.ops.unseen import hiding
from mlx_embed.batching import Batch, packed_batches
from mlx_embed.checkpoint.int8 import Columns
from mlx_embed.checkpoint.safetensors import Pages, let_go
from mlx_embed.engine.contract import Gathering, Head, HeadFunction, Parameters, Result, Rows, gathered
from mlx_embed.engine.device import checked_budget
from mlx_embed.engine.forward import forward

# Of a batch: enough for every core, few enough for what it needs between layers to stay in the caches.
TOKENS_A_THREAD, FEWEST_TOKENS, MOST_TOKENS = 256, 2048, 4096


class NativeEngine:
    """Runs an encoder by the CPU kernels, on numpy arrays; see `Engine`."""

    name = "native"
    ahead = 0

    def __init__(
        self,
        encoder: nn.Module,
        dtype: mx.Dtype = mx.float32,
        *,
        pads: bool = False,
        kept: Collection[str] = (),
        columns: Mapping[str, Columns] | None = None,
        pages: Mapping[Path, Pages] | None = None,
    ) -> None:
        """Take a loaded encoder, whose weights are laid out for the kernels, to compute in `dtype`.

        `pads` says that what follows it lays texts out as a block, as wide as the longest of a batch. Linear layers
        whose paths are among `kept` are in bfloat16, or in float32 where that is not multiplied here. `columns` say
        what those of the others are scaled by. `pages` are the files that weights lie in; they are let go as these
        are laid out.

        Raises:
            CheckpointError: a path in `kept` or `columns` at which there is no linear layer.
        """
        self.device = mx.Device(mx.cpu)
        self.encoder = encoder
        self.dtype = dtype
        self._pads = pads
        name = spelled(dtype)
        accelerate.decide()
        self._attention = native.attention_dtype(name)
        better = "bfloat16" if cpu.product("bfloat16") else "float32"
        self.layers = native.lay_out(encoder, name, kept, better, columns, partial(let_go, pages or {}))

    @property
    def kept(self) -> tuple[str, ...]:
        """The linear layers that are in another dtype than this engine's."""
        return tuple(path for path, layer in self.layers.items() if layer.dtype != spelled(self.dtype))

    def budget(self, batch_tokens: int | None) -> int:
        """See `Engine`."""
        default = min(max(TOKENS_A_THREAD * cpu.num_threads(), FEWEST_TOKENS), MOST_TOKENS)
        return checked_budget(batch_tokens, default)

    def batches(
        self,
        ids: Sequence[Sequence[int]],
        batch_tokens: int,
        max_texts: int | None = None,
        token_types: Sequence[Sequence[int]] | None = None,
        unseen: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Batch]:
        """See `Engine`."""
        return packed_batches(
            ids,
            batch_tokens,
            bucketed=False,
            padded=self._pads,
            max_texts=max_texts,
            token_types=token_types,
            unseen=unseen,
        )

    def head(self, function: HeadFunction, parameters: Parameters = ()) -> Head:
        """See `Engine`."""
        return partial(forward, function, [native.laid_out(module) for module in parameters])

    def run(
        self, batches: Iterable[Batch], head: Head, *, of_tokens: bool = False
    ) -> Generator[tuple[Batch, Rows], None, None]:
        """See `Engine`; a batch has fillers only where none of its texts has a token."""
        for batch in batches:
            types = () if batch.token_type_ids is None else (batch.token_type_ids,)
            with native.attention_in(self._attention), hiding(batch.unseen):
                rows = head(self.encoder, batch.input_ids, batch.cu_seqlens, batch.max_seqlen, *types)
            if len(batch.cu_seqlens) - 1 > len(batch.texts):
                rows = rows[batch.tokens if of_tokens else slice(len(batch.texts))]
            yield batch, rows

    def gather(self, batches: Iterable[Batch], head: Head, advance: Callable[[int], Any]) -> Gathering:
        """See `Engine`; computed when the result is asked for."""
        run = self.run(batches, head)

        def parts() -> Iterator[tuple[Batch, Rows]]:
            for batch, rows in run:
                yield batch, rows
                advance(len(batch.texts))

        return Gathering(lambda: gathered(parts()), run.close)

    def near(self, work: Callable[[], Result]) -> Result:
        """See `Engine`."""
        return work()

    def begin(self, batches: Iterable[Batch], head: Head) -> Callable[[], Rows]:
        """See `Engine`; computed when the rows are asked for."""
        return self.gather(batches, head, lambda _: None).result
