"""ExpertLayer and Router: the weights of a feed-forward of experts."""

import mlx.core as mx
import mlx.nn as nn


class Router(nn.Module):
    """A weight [count, hidden], by which experts are chosen; float32 whatever the linear layers are in, on a CPU."""

    def __init__(self, count: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = mx.zeros((count, hidden_size))


class ExpertLayer(nn.Module):
    """A linear layer of each expert, and a bias that they share.

    Attributes:
        weight: [count * rows, columns], one expert's below the other's.
        bias: added once to what the experts give together; absent for none.
        count: the number of experts.
        turned: whether an input has `rows` elements, and the output `columns`; else it is the other way round.
    """

    def __init__(self, count: int, rows: int, columns: int, *, turned: bool = False, bias: bool = False) -> None:
        super().__init__()
        self.weight = mx.zeros((count * rows, columns))
        if bias:
            self.bias = mx.zeros((columns if turned else rows,))
        self.count, self.turned = count, turned

    def to_quantized(self, group_size: int, bits: int, mode: str = "affine") -> "QuantizedExpertLayer":
        """The same with its weight quantized, along its columns."""
        return QuantizedExpertLayer(self, group_size, bits, mode)


class QuantizedExpertLayer(nn.Module):
    """An `ExpertLayer` whose weight is packed, as `nn.QuantizedLinear` has it: `scales` and perhaps `biases` beside."""

    def __init__(self, layer: ExpertLayer, group_size: int, bits: int, mode: str) -> None:
        super().__init__()
        self.weight, self.scales, *rest = mx.quantize(layer.weight, group_size, bits, mode=mode)
        if rest:
            self.biases = rest[0]
        if "bias" in layer:
            self.bias = layer.bias
        self.count, self.turned = layer.count, layer.turned
        self.group_size, self.bits, self.mode = group_size, bits, mode
