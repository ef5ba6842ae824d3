"""Which function config.json's hidden_act is: one that kernels have, or a formula on arrays of either kind."""

from collections.abc import Callable
from math import sqrt
from types import ModuleType
from typing import Any, TypeAlias

from mlx_embed.errors import UnsupportedModelError

# A formula takes an array and the twin of `ops` that the array is of, `graph` or `native`.
Formula: TypeAlias = Callable[[Any, ModuleType], Any]

# transformers' names (activations.py, ACT2CLS of 5.24) of what the kernels compute.
_KERNELS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def activation(hidden_act: str) -> str:
    """The ops' name of what config.json calls `hidden_act`: a kernel's, or a key of FORMULAS.

    Raises:
        UnsupportedModelError: an activation that the ops do not have.
    """
    name = _KERNELS.get(hidden_act, hidden_act)
    if hidden_act not in _KERNELS and hidden_act not in FORMULAS:
        known = ", ".join(sorted({*_KERNELS, *FORMULAS}))
        raise UnsupportedModelError(
            f'config.json has "hidden_act": {hidden_act!r}; mlx_embed has {known}: transformers\' without parameters.'
        )
    return name


def _sigmoid(x: Any, twin: ModuleType) -> Any:
    return 0.5 * (1 + twin.NAMESPACE.tanh(0.5 * x))  # exp(-x) would overflow


def _softplus(x: Any, twin: ModuleType) -> Any:
    xp = twin.NAMESPACE
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


def _gelu_10(x: Any, twin: ModuleType) -> Any:
    return twin.NAMESPACE.clip(0.5 * x * (1 + twin.erf(x * sqrt(0.5))), -10, 10)


def _relu2(x: Any, twin: ModuleType) -> Any:
    return twin.NAMESPACE.square(twin.NAMESPACE.maximum(x, 0))


# The rest of transformers' activations that have no parameters, by its names.
FORMULAS: dict[str, Formula] = {
    "gelu_10": _gelu_10,
    "hardswish": lambda x, twin: x * twin.NAMESPACE.clip(x + 3, 0, 6) / 6,
    "laplace": lambda x, twin: 0.5 * (1 + twin.erf((x - 0.707107) / (0.282095 * sqrt(2)))),
    "leaky_relu": lambda x, twin: twin.NAMESPACE.maximum(x, 0.01 * x),
    "linear": lambda x, twin: x,
    "mish": lambda x, twin: x * twin.NAMESPACE.tanh(_softplus(x, twin)),
    "quick_gelu": lambda x, twin: x * _sigmoid(1.702 * x, twin),
    "relu2": _relu2,
    "relu6": lambda x, twin: twin.NAMESPACE.clip(x, 0, 6),
    "sigmoid": _sigmoid,
    "sqrtsoftplus": lambda x, twin: twin.NAMESPACE.sqrt(_softplus(x, twin)),
    "tanh": lambda x, twin: twin.NAMESPACE.tanh(x),
}
