"""The GPUs that this package has kernels for, and which of them this machine has."""

from importlib.metadata import version

import mlx.core as mx

KERNEL_BACKENDS = ("metal", "cuda")


def default_backend() -> str | None:
    """The kernel back end of MLX's default device: "metal", "cuda", or None on a CPU."""
    if mx.default_device() != mx.Device(mx.gpu):
        return None
    return "metal" if mx.metal.is_available() else "cuda" if mx.cuda.is_available() else None


def require_backend(name: str) -> None:
    """Raise RuntimeError where kernels of `name` ("metal" or "cuda") cannot run on this machine."""
    available = {"metal": mx.metal.is_available, "cuda": mx.cuda.is_available}[name]
    if not available():
        raise RuntimeError(
            f"The {name} kernel was asked for, but this MLX build ({version('mlx')}) has no {name} back end here. "
            'Use backend=None to take what the machine has, or backend="reference".'
        )
