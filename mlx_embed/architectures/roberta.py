"""RoBERTa (Liu et al., 2019), packed: BERT with positions that count on from the pad token's; XLM-R, CamemBERT too."""

from dataclasses import dataclass

from mlx_embed.architectures import bert, ops
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.ops import Array

PREFIXES = ("roberta.",)
# The names of Jina's own XLM-R, of jina-reranker-v2 with RoBERTa's positions, of jina-embeddings-v3 with rotary ones.
JINA_RENAMES = (
    (".parametrizations.weight.original", ".weight"),
    ("emb_ln.", "embeddings.norm."),
    ("encoder.layers.", "layers."),
    ("mixer.Wqkv.", "attention.qkv."),
    ("mixer.out_proj.", "attention.out."),
    ("norm1.", "attention_norm."),
    ("norm2.", "output_norm."),
)
RENAMES = (*JINA_RENAMES, ("mlp.fc1.", "up."), ("mlp.fc2.", "down."), *bert.RENAMES)
HEAD = (("classifier.dense", "Tanh"), ("classifier.out_proj", "Identity"))
LAYOUT: Layout = "packed"


@dataclass(frozen=True)
class Config(bert.Config):
    """The part of config.json that shapes the encoder."""

    pad_token_id: int = 1

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens: the position rows less those up to the pad token's."""
        return self.max_position_embeddings - self.pad_token_id - 1


class Embeddings(bert.Embeddings):
    """Word + position + token type, normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.pad_token_id = config.pad_token_id

    def positions(self, input_ids: Array, cu_seqlens: Array) -> Array:
        """Each token's row of position_embeddings: [T]."""
        return ops.offset_position_ids(input_ids, cu_seqlens, self.pad_token_id)


class Model(bert.Model):
    """The encoder: token ids to hidden states."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
