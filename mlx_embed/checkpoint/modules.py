"""What modules.json puts behind the encoder: pooling, dense layers, LayerNorm, normalisation.

Each is a fact of the checkpoint, and a function of arrays: MLX's or numpy's. Their weights are float32 whatever the
encoder's dtype is: they are small, and what they work on has been pooled in float32.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mlx_embed.architectures import ops
from mlx_embed.architectures.ops import Array
from mlx_embed.pooling import PADDED, POOLING

Shapes: TypeAlias = dict[str, tuple[int, ...]]
Parameters: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class Pooling:
    """Hidden states to one vector a text.

    Attributes:
        modes: keys of POOLING; the vectors of several are laid side by side.
        include_prompt: whether a prompt's own tokens are pooled.
    """

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True

    @property
    def padded(self) -> bool:
        """Whether a batch of very different lengths costs memory for all its texts at the longest one's."""
        return not PADDED.isdisjoint(self.modes)

    def __call__(self, hidden: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0, blank: bool = False) -> Array:
        """[T, hidden] -> [n, len(modes) * hidden]; `skip` is the number of the prompt's tokens to leave out.

        `blank` says that a text may have no others, of which this gives zeros, as sentence-transformers' means do.
        """
        # mean() sums in float32 by itself. The other modes get a float32 copy; MLX is lazy, and makes it only if used.
        exact = ops.float32(hidden)
        pooled = [
            POOLING[mode](hidden if mode == "mean" else exact, cu_seqlens, max_seqlen, skip) for mode in self.modes
        ]
        xp = ops.namespace(hidden)
        vectors = pooled[0] if len(pooled) == 1 else xp.concatenate(pooled, axis=-1)
        return xp.where((cu_seqlens[1:] - cu_seqlens[:-1] > skip)[:, None], vectors, 0) if blank else vectors


@dataclass(frozen=True)
class Pooled:
    """What is in the place of Pooling where the model gives a vector a text by itself, averaged."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    padded: bool = False

    def __call__(self, vectors: Array, cu_seqlens: Array, max_seqlen: int, skip: int = 0, blank: bool = False) -> Array:
        """[n, hidden] -> [n, hidden]."""
        return ops.float32(vectors)


@dataclass(frozen=True)
class Dense:
    """A linear layer and its activation: [n, in_features] -> [n, out_features].

    Attributes:
        folder: where its weights are.
        activation: a key of ACTIVATIONS.
        bias: whether it has one.
        residual: whether its input is added, through a second matrix where the sizes differ.
        beside: whether its weights lie among other tensors.
    """

    folder: Path
    in_features: int
    out_features: int
    activation: str = "Tanh"
    bias: bool = True
    residual: bool = False
    beside: bool = False

    @property
    def shapes(self) -> Shapes:
        """The tensors of its weights' file."""
        matrix = (self.out_features, self.in_features)
        shapes: Shapes = {"linear.weight": matrix}
        if self.bias:
            shapes["linear.bias"] = matrix[:1]
        if self.residual and self.in_features != self.out_features:
            shapes["residual.weight"] = matrix
        return shapes

    def __call__(self, vectors: Array, parameters: Parameters) -> Array:
        """[n, in_features] -> [n, out_features]."""
        out = ops.product(vectors, parameters["linear.weight"])
        if self.bias:
            out = out + parameters["linear.bias"]
        out = ACTIVATIONS[self.activation](out)
        if not self.residual:
            return out
        if "residual.weight" in parameters:
            return out + ops.product(vectors, parameters["residual.weight"])
        return out + vectors


@dataclass(frozen=True)
class LayerNorm:
    """LayerNorm over the vectors' dimensions.

    Attributes:
        folder: where its weights are.
        dimension: of the vectors.
        bias: whether it has one.
        eps: added to the variance.
    """

    folder: Path
    dimension: int
    bias: bool = True
    eps: float = 1e-5

    @property
    def shapes(self) -> Shapes:
        """The tensors of its weights' file."""
        names = ("norm.weight", "norm.bias") if self.bias else ("norm.weight",)
        return dict.fromkeys(names, (self.dimension,))

    def __call__(self, vectors: Array, parameters: Parameters) -> Array:
        """[n, dimension] -> [n, dimension]."""
        centred = vectors - vectors.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scaled = centred / ops.namespace(vectors).sqrt(variance + self.eps) * parameters["norm.weight"]
        return scaled + parameters["norm.bias"] if self.bias else scaled


@dataclass(frozen=True)
class Normalize:
    """Vectors scaled to length 1."""

    @property
    def shapes(self) -> Shapes:
        """It has no weights."""
        return {}

    def __call__(self, vectors: Array, parameters: Parameters) -> Array:
        """[n, dim] -> [n, dim]."""
        return ops.normalize(vectors)


Module: TypeAlias = Dense | LayerNorm | Normalize


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + ops.namespace(x).tanh(0.5 * x))  # exp(-x) would overflow


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + ops.erf(x * 0.5**0.5))


# By torch's class names.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "GELU": _gelu,
    "Identity": lambda x: x,
    "ReLU": lambda x: ops.namespace(x).maximum(x, 0),
    "SiLU": lambda x: x * _sigmoid(x),
    "Sigmoid": _sigmoid,
    "Tanh": lambda x: ops.namespace(x).tanh(x),
}
