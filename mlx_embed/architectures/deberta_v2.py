"""DeBERTa v2 and v3 (He et al., 2021), packed: scores of content by content, and of content by distance, both ways."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_embed.architectures import ops
from mlx_embed.architectures.config import LARGEST_SIZE, read_config
from mlx_embed.architectures.contract import Layout
from mlx_embed.architectures.direction import checked_direction, flag
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array
from mlx_embed.errors import CheckpointError, UnsupportedModelError

PREFIXES = ("deberta.",)
RENAMES = (
    ("embeddings.LayerNorm.", "embeddings.norm."),
    ("encoder.rel_embeddings.", "distances.rows."),
    ("encoder.LayerNorm.", "distances.norm."),
    ("encoder.layer.", "layers."),
    ("attention.self.query_proj.", "attention.q."),
    ("attention.self.key_proj.", "attention.k."),
    ("attention.self.value_proj.", "attention.v."),
    ("attention.self.pos_key_proj.", "attention.to_key."),
    ("attention.self.pos_query_proj.", "attention.to_query."),
    ("attention.output.dense.", "attention.out."),
    ("attention.output.LayerNorm.", "attention_norm."),
    ("intermediate.dense.", "up."),
    ("output.dense.", "down."),
    ("output.LayerNorm.", "output_norm."),
)
HEAD = (("pooler.dense", "GELU"), ("classifier", "Identity"))
LAYOUT: Layout = "packed"
BOTH = ("c2p", "p2c")


@dataclass(frozen=True)
class Config:
    """The part of config.json that shapes the encoder.

    Attributes:
        span: distances that are told apart to each side.
        farthest: the distance at which they end, in logarithmic buckets.
        logarithmic: whether far distances share such buckets; else each up to `span` is its own.
        kinds: what a score has besides the product of two contents: "c2p", the query's by the distance, and "p2c",
            the key's.
        share_att_key: whether distances go through the projections of contents.
        normalize_distances: whether their embeddings are normalised.
        position_biased_input: whether positions are added to the words.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    span: int
    farthest: int
    logarithmic: bool
    kinds: tuple[str, ...]
    normalize_distances: bool
    position_biased_input: bool = True
    share_att_key: bool = False
    type_vocab_size: int = 0
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-7

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Config":
        """Check and read config.json."""
        hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
        fixed = {"conv_kernel_size": 0, "embedding_size": hidden, "pooler_hidden_act": "gelu"}
        if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
            fixed["attention_head_size"] = hidden // heads
        for name, value in {"relative_attention": True, **fixed}.items():
            given = config.get(name, value if name in fixed else False)
            if given not in (value, None):
                raise UnsupportedModelError(f'config.json has "{name}": {given!r}; mlx_embed has {value!r}.')
        checked_direction(config, causal=False)
        result = read_config(cls, {**config, **_distances(config)})
        ops.activation(result.hidden_act)
        return result

    @property
    def max_tokens(self) -> int:
        """The longest text, in tokens, that the model was made for."""
        return self.max_position_embeddings


def _distances(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Config that say what distances do."""
    kinds = config.get("pos_att_type") or []
    if isinstance(kinds, str):
        kinds = [kind.strip() for kind in kinds.lower().split("|")]
    if not isinstance(kinds, list) or not all(kind in BOTH for kind in kinds):
        raise UnsupportedModelError(f'config.json has "pos_att_type": {kinds!r}; mlx_embed has {", ".join(BOTH)}.')
    buckets, farthest = config.get("position_buckets", -1), config.get("max_relative_positions", -1)
    for name, value in (("position_buckets", buckets), ("max_relative_positions", farthest)):
        if type(value) is not int or value > LARGEST_SIZE or value == 1:
            raise CheckpointError(f'config.json has "{name}": {value!r}, where a number of distances is needed.')
    norm = config.get("norm_rel_ebd", "none")
    if not isinstance(norm, str):
        raise CheckpointError(f'config.json has "norm_rel_ebd": {norm!r}, where a text is needed.')
    if farthest < 1:
        farthest = config.get("max_position_embeddings")
    return {
        "span": buckets if buckets > 0 else farthest,
        "farthest": farthest,
        "logarithmic": buckets > 0,
        "kinds": tuple(kinds),
        "normalize_distances": "layer_norm" in [part.strip() for part in norm.lower().split("|")],
        "share_att_key": flag(config, "share_att_key", default=False),
    }


@cache
def distance_rows(length: int, span: int, farthest: int, logarithmic: bool) -> npt.NDArray[np.int32]:
    """The row of each distance from -length to length: int32 [2 * length + 1], of 2 * span rows.

    Up to half of `span` each distance is its own row; beyond that, logarithmically fewer up to `farthest`, if
    `logarithmic`. Computed in float32, as the model was trained with it.
    """
    distance = np.arange(-length, length + 1, dtype=np.int32)
    bucket = distance
    if logarithmic:
        half = span // 2
        size = np.maximum(np.abs(distance), half)
        share = np.log(size.astype(np.float32) / np.float32(half)) / np.log(np.float32((farthest - 1) / half))
        large = np.ceil(share * np.float32(half - 1)) + np.float32(half)
        bucket = np.where(np.abs(distance) <= half, distance, large.astype(np.int32) * np.sign(distance))
    return np.clip(bucket + span, 0, 2 * span - 1).astype(np.int32)


class Embeddings(nn.Module):
    """Word, perhaps with position and token type, normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = self.token_type_embeddings = None
        if config.position_biased_input:
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, input_ids: Array, cu_seqlens: Array, token_type_ids: Array | None) -> Array:
        """[T] -> [T, hidden]; every token is of type 0 unless said otherwise."""
        lookups = [(self.word_embeddings, input_ids)]
        if self.position_embeddings is not None:
            lookups.append((self.position_embeddings, ops.position_ids(cu_seqlens, input_ids.shape[0])))
        if self.token_type_embeddings is not None:
            types = ops.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            lookups.append((self.token_type_embeddings, types))
        return ops.embedding_norm(lookups, self.norm)


class Distances(nn.Module):
    """Embeddings of distances, which all layers share."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.rows = nn.Embedding(2 * config.span, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps) if config.normalize_distances else None

    def __call__(self, ids: Array) -> Array:
        """[U] -> [U, hidden]."""
        return ops.embed(self.rows, ids) if self.norm is None else ops.embedding_norm([(self.rows, ids)], self.norm)


# What a layer multiplies queries by at each distance, and keys; None for nothing.
Projected: TypeAlias = tuple[Array | None, Array | None]


class Attention(nn.Module):
    """Multi-head self-attention by contents and distances."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden, heads = config.hidden_size, config.num_attention_heads
        self.num_heads, self.hidden_size, self.kinds = heads, hidden, config.kinds
        self.scale = (hidden // heads * (1 + len(set(config.kinds)))) ** -0.5
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.share = config.share_att_key
        if not self.share and "c2p" in config.kinds:
            self.to_key = nn.Linear(hidden, hidden)
        if not self.share and "p2c" in config.kinds:
            self.to_query = nn.Linear(hidden, hidden)

    def __call__(self, x: Array, projected: Projected, rows: Array, cu_seqlens: Array, max_seqlen: int) -> Array:
        """[T, hidden] -> [T, hidden], before the output projection.

        `projected` are distances, and `rows` [2 L + 1] says which of them each distance from -L to L has.
        """
        qkv = ops.linear(x, self.qkv)
        return ops.disentangled_attention(qkv, *projected, rows, cu_seqlens, self.num_heads, self.scale, max_seqlen)

    def projected(self, distances: Array) -> Projected:
        """Embedded distances as the query meets them, and the key: [U, hidden] to [U, hidden] each."""
        if self.share:
            both = ops.linear(distances, self.qkv)
            query, key = (ops.columns(both, i * self.hidden_size, (i + 1) * self.hidden_size) for i in range(2))
            return key if "c2p" in self.kinds else None, query if "p2c" in self.kinds else None
        return (
            ops.linear(distances, self.to_key) if "c2p" in self.kinds else None,
            ops.linear(distances, self.to_query) if "p2c" in self.kinds else None,
        )


class Layer(nn.Module):
    """Attention, then a two-layer feed-forward; each is added to its input and normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.attention = Attention(config)
        self.attention_norm = LayerNorm(hidden, eps)
        self.up = nn.Linear(hidden, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, hidden)
        self.output_norm = LayerNorm(hidden, eps)
        self.activation = ops.activation(config.hidden_act)

    def __call__(
        self,
        x: Array,
        projected: Projected,
        places: Array,
        cu_seqlens: Array,
        max_seqlen: int,
        rows: Array | None = None,
    ) -> Array:
        """[T, hidden] -> [T, hidden], or [n, hidden] of the tokens `rows`."""
        attended = self.attention(x, projected, places, cu_seqlens, max_seqlen)
        attended, x = ops.at_rows(rows, attended, x)
        x = ops.output_norm(attended, self.attention.out, x, self.attention_norm)
        return ops.feed_forward(x, self.up, self.down, self.activation, self.output_norm)


class Model(nn.Module):
    """The encoder: token ids to hidden states."""

    # Scores by distance take several times the memory of scores, so that fewer tokens fill a GPU.
    batch_tokens = 8192
    takes_rows = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.distances = Distances(config)
        self.layers = [Layer(config) for _ in range(config.num_hidden_layers)]
        self.buckets = (config.span, config.farthest, config.logarithmic)
        self._every: list[Projected] = []

    def __call__(
        self,
        input_ids: Array,
        cu_seqlens: Array,
        max_seqlen: int,
        token_type_ids: Array | None = None,
        rows: Array | None = None,
    ) -> Array:
        """Token ids [T] of a packed batch to hidden states [T, hidden], or [n, hidden] of the tokens `rows`."""
        x = self.embeddings(input_ids, cu_seqlens, token_type_ids)
        projected, places = self._projected(distance_rows(max(max_seqlen, 1), *self.buckets), input_ids)
        for (layer, wanted), of_layer in zip(ops.with_rows(self.layers, rows), projected, strict=True):
            x = layer(x, of_layer, places, cu_seqlens, max_seqlen, wanted)
        return x

    def _projected(self, rows: npt.NDArray[np.int32], like: Array) -> tuple[list[Projected], Array]:
        """The distances of these rows for each layer, and where each of them is."""
        if ops.settled(like):
            if not self._every:
                self._every = self._of_layers(np.arange(2 * self.buckets[0]), like)
            return self._every, ops.ids(rows, like)
        # Far distances share their rows, and short texts have few, so that not all are projected.
        used, places = np.unique(rows, return_inverse=True)
        return self._of_layers(used, like), ops.ids(places, like)

    def _of_layers(self, rows: npt.NDArray[Any], like: Array) -> list[Projected]:
        distances = self.distances(ops.ids(rows, like))
        return [layer.attention.projected(distances) for layer in self.layers]
