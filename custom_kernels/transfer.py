"""Between numpy and MLX's arrays, by what is fastest on the device."""

import warnings
from collections.abc import Callable
from functools import cache

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from custom_kernels.backends import default_backend
from custom_kernels.choice.switch import kernels_wanted
from custom_kernels.cuda import host

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


def find_way() -> None:
    """Find out by which way numbers go to the device and back, which takes a process some 0.1 s, before any do."""
    _pinned()


def to_device(*arrays: Int32) -> list[mx.array]:
    """The arrays, int32 [N] each, as MLX's."""
    if _pinned():
        return host.to_device(*arrays)
    return [mx.array(array) for array in arrays]


def to_host(x: mx.array) -> Callable[[], Float32]:
    """Begin to compute x; what comes back waits for the result, in float32."""
    x = x.astype(mx.float32)
    if _pinned() and x.size:
        return host.to_host(x)
    mx.async_eval(x)  # type: ignore[no-untyped-call]
    return lambda: np.asarray(x)


def _pinned() -> bool:
    return default_backend() == "cuda" and kernels_wanted() and _pinned_works()


@cache
def _pinned_works() -> bool:
    """Whether numbers come back from the GPU as they were sent; if not, says so once."""
    sent = np.random.default_rng(0).integers(-(2**20), 2**20, size=3000).astype(np.int32)
    try:
        first, second = host.to_device(sent[:1000], sent[1000:])
        found = host.to_host(mx.concatenate([first, second]).astype(mx.float32))()
        why = None if (found == sent).all() else "what it copies differs"
    except Exception as error:  # whatever a compiler or a driver may say
        why = f"it does not run: {str(error).strip()[:300]}"
    if why:
        message = f"Transfers through pinned memory are switched off, since {why}. MLX's own are used instead."
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return why is None
