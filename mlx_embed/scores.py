"""Logits to scores: numpy, in float64, by torch's class names.

In float64 a score is within one unit in the last place of float32, also where it is close to 0 or 1, and a larger logit
never has a smaller one.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def softmax(logits: Float64) -> Float64:
    """Probabilities of a row's labels, which add up to 1: [N, labels] -> [N, labels]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_softmax(logits: Float64) -> Float64:
    """Their logarithms: [N, labels] -> [N, labels]."""
    below = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(below)
    # The largest label's power is 1. Left out of the sum, what the others add to it is not lost in rounding.
    powers[np.arange(len(powers)), below.argmax(axis=1)] = 0
    return below - np.log1p(powers.sum(axis=1, keepdims=True))


def sigmoid(logits: Float64) -> Float64:
    """A probability for each logit."""
    power = np.exp(-np.abs(logits))  # of a large positive number it would overflow
    return np.where(logits < 0, power, 1) / (1 + power)


def log_sigmoid(logits: Float64) -> Float64:
    """The logarithm of a probability for each logit."""
    return np.minimum(logits, 0) - np.log1p(np.exp(-np.abs(logits)))


def _gelu(logits: Float64) -> Float64:
    return 0.5 * logits * _erfc(-logits * 0.5**0.5)


# 1 + erf(x) would lose the digits of a number close to 0.
_erfc = np.vectorize(math.erfc, otypes=[np.float64])

SCORES: dict[str, Callable[[Float64], Float64]] = {
    "GELU": _gelu,
    "Identity": lambda logits: logits,
    "LogSigmoid": log_sigmoid,
    "LogSoftmax": log_softmax,
    "ReLU": lambda logits: np.maximum(logits, 0),
    "SiLU": lambda logits: logits * sigmoid(logits),
    "Sigmoid": sigmoid,
    "Softmax": softmax,
    "Tanh": np.tanh,
}
# These take a pair's labels together, and need several.
_OF_LABELS = ("LogSoftmax", "Softmax")
# What torch's objects may be set to, and those settings that are computed here.
_SETTINGS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "GELU": ("approximate", ("none",)),
    "LogSoftmax": ("dim", (1, -1)),
    "Softmax": ("dim", (1, -1)),
}


def activations(num_labels: int) -> list[str]:
    """The keys of SCORES that a model of so many labels can have."""
    return [name for name in SCORES if num_labels > 1 or name not in _OF_LABELS]


def activation_name(activation: Any, num_labels: int) -> str:
    """A key of SCORES: of a name, or of an object whose class has such a name, `torch.nn.Sigmoid()` for example.

    Raises:
        ValueError: none of SCORES, one that needs several labels where there is one, or an object that is set to
            compute something else.
    """
    name = activation if isinstance(activation, str) else type(activation).__name__
    if name not in activations(num_labels):
        known, labels = ", ".join(activations(num_labels)), "one label" if num_labels == 1 else f"{num_labels} labels"
        raise ValueError(f"activation {name!r} is not one of {known}, which a model of {labels} can have.")
    setting, as_here = _SETTINGS.get(name, ("", ()))
    found = getattr(activation, setting, None) if setting else None
    if found is not None and found not in as_here:
        raise ValueError(f"activation {name} with {setting}={found!r}; mlx_embed has {setting}={as_here[-1]!r}.")
    return name
