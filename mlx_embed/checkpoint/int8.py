"""How a CPU computes linear layers in int8: which of them not, and what their columns are scaled by.

config.json of a converted folder says it under "int8_cpu", and what was measured at a first load is remembered so.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mlx_embed.errors import CheckpointError

Floats: TypeAlias = npt.NDArray[np.float32]
# Of a weight [N, K] what its columns are multiplied by, [K]; see `cpu.Linear`.
Columns: TypeAlias = Callable[[Floats], Floats]

# Factors are powers of two to eighths of a whole number, each of them a byte.
EIGHTHS = 8


@dataclass(frozen=True)
class Int8Layers:
    """What linear layers are other than plain int8, by their paths in the encoder.

    Attributes:
        kept: in bfloat16, sorted.
        exponents: of the factors of a layer's columns in eighths of a power of two, as signed bytes in base64.
    """

    kept: tuple[str, ...] = ()
    exponents: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, value: Any) -> "Int8Layers":
        """From JSON's values. Without "columns", which earlier versions did not write, none are scaled.

        Raises:
            CheckpointError: what this package did not write.
        """
        kept = value.get("bfloat16") if isinstance(value, dict) else None
        if not isinstance(kept, list) or not all(isinstance(path, str) for path in kept):
            raise CheckpointError(
                f'config.json has "int8_cpu": {value!r:.200}, without a list of layers in "bfloat16".'
            )
        columns = value.get("columns", {})
        if not isinstance(columns, dict) or not all(isinstance(factors, str) for factors in columns.values()):
            raise CheckpointError(f'config.json has "columns": {columns!r:.200} in "int8_cpu", not a string a layer.')
        return cls(tuple(kept), columns)

    def as_dict(self) -> dict[str, Any]:
        """As JSON's values."""
        return {"bfloat16": list(self.kept), "columns": dict(self.exponents)}

    @property
    def columns(self) -> dict[str, Columns]:
        """The factors by the layers' paths; a function raises CheckpointError of another number than a weight has."""
        return {path: partial(factors, path, text) for path, text in self.exponents.items()}


def stated(config: Mapping[str, Any]) -> Int8Layers | None:
    """What a folder for int8 on a CPU says; None of other folders.

    Raises:
        CheckpointError: an "int8_cpu" that this package did not write.
    """
    value = config.get("int8_cpu")
    return None if value is None else Int8Layers.read(value)


def nearest(factors: Floats) -> str:
    """The exponents of positive numbers [K], but for a common factor: their median's is about 0."""
    eighths = EIGHTHS * np.log2(factors)
    whole = np.clip(np.rint(eighths - np.median(eighths)), -127, 127).astype(np.int8)
    return base64.b64encode(whole.tobytes()).decode()


def factors(path: str, text: str, weight: Floats) -> Floats:
    """The factors of these exponents, for the columns of a layer's weight [N, K]: [K].

    Raises:
        CheckpointError: another number of them, or no base64.
    """
    try:
        exponents = np.frombuffer(base64.b64decode(text, validate=True), np.int8)
    except (ValueError, binascii.Error):
        exponents = np.empty(0, np.int8)
    if len(exponents) != weight.shape[1]:
        raise CheckpointError(
            f'config.json has "int8_cpu" with columns of {path} that are no base64 of {weight.shape[1]} bytes; convert '
            "the model again."
        )
    return np.exp2(exponents.astype(np.float32) / EIGHTHS)
