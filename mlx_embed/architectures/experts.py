"""A feed-forward of experts (Shazeer et al., 2017): of each token, those that a router gives the largest weights."""

import mlx.nn as nn

from mlx_embed.architectures import ops
from mlx_embed.architectures.expert_layer import ExpertLayer, Router
from mlx_embed.architectures.norm import LayerNorm
from mlx_embed.architectures.ops import Array


class Experts(nn.Module):
    """The sum of weight_e * down_e(act(up_e(x))) over the `top_k` experts of a token, and a bias.

    The weights are the largest of a softmax over all experts, and are not scaled to sum to 1.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, count: int, top_k: int, activation: str) -> None:
        super().__init__()
        self.router = Router(count, hidden_size)
        self.up = ExpertLayer(count, intermediate_size, hidden_size)
        self.down = ExpertLayer(count, intermediate_size, hidden_size, turned=True, bias=True)
        self.top_k, self.activation = top_k, activation

    def __call__(self, x: Array, norm: LayerNorm) -> Array:
        """[T, hidden] -> [T, hidden], added to x and normalised."""
        return ops.layer_norm(ops.experts(x, self.router, self.up, self.down, self.activation, self.top_k) + x, norm)
