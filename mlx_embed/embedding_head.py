"""EmbeddingHead: what an embedding model does with an encoder's hidden states."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from mlx_embed.architectures import ops
from mlx_embed.architectures.ops import Array
from mlx_embed.checkpoint.modules import Module, Pooled, Pooling
from mlx_embed.engine.contract import Parameters
from mlx_embed.pooling import ROWS


@dataclass(frozen=True)
class EmbeddingHead:
    """Hidden states to vectors: pooling, modules, Matryoshka truncation, normalisation; float32 at the end.

    Attributes:
        pooling: the checkpoint's.
        modules: the checkpoint's, which follow it.
        skip: a prompt's tokens, which are not pooled.
        dim: dimensions that are kept.
        unit: whether vectors are then scaled to length 1.
        blank: whether a text may have no token that is pooled: its pooled vector is zeros.
    """

    pooling: Pooling | Pooled
    modules: tuple[Module, ...]
    skip: int
    dim: int
    unit: bool
    blank: bool = False

    @property
    def of_one_token(self) -> tuple[Callable[..., Array], "EmbeddingHead"] | None:
        """See `HeadFunction`."""
        mode = self.pooling.modes[0] if len(self.pooling.modes) == 1 and isinstance(self.pooling, Pooling) else ""
        if mode not in ROWS or self.blank:
            return None
        return partial(ROWS[mode], skip=self.skip), replace(self, pooling=Pooled(), skip=0)

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, parameters: Parameters) -> Array:
        """[T, H] -> [n, dim]."""
        mean_alone = isinstance(self.pooling, Pooling) and self.pooling.modes == ("mean",) and not self.modules
        if mean_alone and self.unit and self.dim == hidden.shape[1] and not (self.blank and self.skip):
            return ops.mean_pool(hidden, cu_seqlens, self.skip, unit=True)
        vectors = self.pooling(hidden, cu_seqlens, max_seqlen, self.skip, self.blank)
        for module, own in zip(self.modules, parameters, strict=True):
            vectors = module(vectors, own)
        return ops.normalize(vectors[:, : self.dim]) if self.unit else vectors[:, : self.dim]
