"""Static models: the vectors of a text's tokens, looked up and averaged; what was an encoder is in the table.

They are those of sentence-transformers' StaticEmbedding, and model2vec's (Tulkens and van Dongen, 2024).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import read_config
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.ops import Array
from mlx_embed.architectures.token_table import TokenTable

PREFIXES: tuple[str, ...] = ()
RENAMES: tuple[tuple[str, str], ...] = ()
HEAD: tuple[tuple[str, str], ...] = ()
LAYOUT: Layout = "table"


@dataclass(frozen=True)
class Config:
    """What a static model's folder says of its table and its texts.

    Attributes:
        vocab_size: tokens that have a row.
        hidden_size: of a row.
        max_tokens: as long as a text may be.
    """

    vocab_size: int
    hidden_size: int
    max_tokens: int
    num_hidden_layers: ClassVar = 0
    type_vocab_size: ClassVar = 0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read what `checkpoint.static` has found."""
        return read_config(cls, config)


class Model(nn.Module):
    """The table, and the average of what is looked up: a vector a text, where an encoder gives one a token."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.table = TokenTable(mx.zeros((config.vocab_size, config.hidden_size)))

    def __call__(self, input_ids: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """[T] -> float32 [n, hidden_size]."""
        return ops.gather_mean(self.table, input_ids, cu_seqlens)
