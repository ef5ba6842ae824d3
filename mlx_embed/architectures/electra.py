"""ELECTRA (Clark et al., 2020), packed: BERT whose embeddings may be narrower than its layers."""

from dataclasses import dataclass

import mlx.nn as nn

from mlx_embed.architectures import bert, ops
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.ops import Array

PREFIXES = ("electra.",)
RENAMES = bert.RENAMES
HEAD = (("classifier.dense", "GELU"), ("classifier.out_proj", "Identity"))
LAYOUT: Layout = "packed"


@dataclass(frozen=True)
class Config(bert.Config):
    """The part of config.json that shapes the encoder."""

    embedding_size: int = 128


class Model(bert.Model):
    """The encoder: token ids to hidden states."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embeddings = bert.Embeddings(config, config.embedding_size)
        narrow = config.embedding_size != config.hidden_size
        self.embeddings_project = nn.Linear(config.embedding_size, config.hidden_size) if narrow else None

    def embed(self, input_ids: Array, cu_seqlens: Array, token_type_ids: Array | None) -> Array:
        """What the first layer reads: [T, hidden]."""
        x = self.embeddings(input_ids, cu_seqlens, token_type_ids)
        return x if self.embeddings_project is None else ops.linear(x, self.embeddings_project)
