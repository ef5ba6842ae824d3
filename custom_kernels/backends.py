"""The GPUs that this package has kernels for, and which of them this machine has."""

import mlx.core as mx

KERNEL_BACKENDS = ("metal", "cuda")


def default_backend() -> str | None:
    """The kernel back end of MLX's default device: "metal", "cuda", or None on a CPU."""
    if mx.default_device() != mx.Device(mx.gpu):
        return None
    return "metal" if mx.metal.is_available() else "cuda" if mx.cuda.is_available() else None


def mlx_version() -> str:
    """Which MLX is installed."""
    # Here, not above: it is seldom asked for, and importing this takes a tenth of the time of importing mlx_embed.
    from importlib.metadata import version

    return version("mlx")


def require_backend(name: str) -> None:
    """Raise RuntimeError where kernels of `name` ("metal" or "cuda") cannot run on this machine."""
    available = {"metal": mx.metal.is_available, "cuda": mx.cuda.is_available}[name]
    if not available():
        raise RuntimeError(
            f"The {name} kernel was asked for, but this MLX build ({mlx_version()}) has no {name} back end here. "
            'Use backend=None to take what the machine has, or backend="reference".'
        )
