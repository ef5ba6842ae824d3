"""The same op on MLX arrays and on numpy arrays: which ops have both, and the arguments of one for the other."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from custom_kernels import cpu
from custom_kernels.choice.op import Op
from custom_kernels.parameters import Linear


def native(op: Op) -> Callable[..., Any] | None:
    """The op's function in `custom_kernels.cpu`, or None where the CPU's kernels have it as a part of others only."""
    function: Callable[..., Any] | None = getattr(cpu, op.name, None)
    return function


def as_native(arguments: Any) -> Any:
    """An op's arguments as its native twin takes them: numpy arrays, and layers laid out for the CPU's kernels.

    They must be float32, or whole numbers.
    """

    def converted(x: Any) -> Any:
        if isinstance(x, Linear):
            return cpu.Linear(np.array(x.weight), None if x.bias is None else np.array(x.bias))
        return np.array(x) if isinstance(x, mx.array) else x

    return tree_map(converted, arguments, is_leaf=lambda x: isinstance(x, Linear))
