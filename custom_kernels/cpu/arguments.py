"""What an op may be given, and how the library takes it. An error names the op and the argument."""

import ctypes
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int32]

FLOAT32 = np.dtype(np.float32)
# Their numbers in kernels.h.
ACTIVATIONS = {None: 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "silu": 4}


def at(array: npt.NDArray[Any] | None) -> int | None:
    """The address of its first element; None of None."""
    if array is None:
        return None
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # read-only or empty; this way takes three times as long
        return int(array.__array_interface__["data"][0])


def floats(op: str, name: str, array: Any, shape: tuple[int | None, ...]) -> None:
    """Raise TypeError or ValueError where it is not a C-contiguous float32 array of this shape; None is any extent."""
    # The usual case costs little more than the call: a forward pass of a short text makes a hundred such checks.
    if type(array) is np.ndarray and array.dtype is FLOAT32 and array.shape == shape and array.flags.c_contiguous:
        return
    _array(op, name, array, shape, np.float32)


def ints(op: str, name: str, array: Any, shape: tuple[int | None, ...]) -> None:
    """As `floats`, of int32, and with an element at least where any extent will do."""
    _array(op, name, array, shape, np.int32)
    if shape[0] is None and not array.size:
        raise ValueError(f"{op} needs {name} with at least one element.")


def _array(op: str, name: str, array: Any, shape: tuple[int | None, ...], dtype: type) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{op} takes {name} as a numpy array of {dtype.__name__}, got {found}.")
    if array.shape != shape and (
        array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True))
    ):
        wanted = ", ".join("any" if extent is None else str(extent) for extent in shape)
        raise ValueError(f"{op} needs {name} of shape ({wanted}), got {array.shape}.")
    if not array.flags.c_contiguous:
        raise ValueError(f"{op} needs {name} to be C-contiguous; use numpy.ascontiguousarray.")


def token_rows(op: str, name: str, x: Any, width: int) -> int:
    """The rows of x, a float32 array [T, width]; raises as `floats`."""
    rows = x.shape[0] if isinstance(x, np.ndarray) and x.ndim == 2 else None
    floats(op, name, x, (rows, width))
    return int(x.shape[0])


def norm_parameters(op: str, weight: Any, bias: Any, width: int) -> None:
    """Raise TypeError or ValueError where a LayerNorm's parameters do not fit rows of this width."""
    if weight is None and bias is not None:
        raise ValueError(f"{op} has a bias for its LayerNorm, but no weight.")
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None:
            floats(op, name, array, (width,))


def bias_length(op: str, bias: Any, num_heads: int) -> int:
    """The longest sequence that an attention's bias [heads, 2 L - 1] is for: L, or 0 without one."""
    if bias is None:
        return 0
    length = (bias.shape[-1] + 1) // 2
    floats(op, "bias", bias, (num_heads, 2 * length - 1))
    return int(length)


def activation_number(op: str, act: str | None) -> int:
    """The library's number of an activation; raises ValueError where it has none."""
    if act not in ACTIVATIONS:
        known = ", ".join(repr(name) for name in ACTIVATIONS)
        raise ValueError(f"{op} has no activation {act!r}; it knows {known}.")
    return ACTIVATIONS[act]
