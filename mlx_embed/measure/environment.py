"""What this machine has, and which kernel each op will use: `mlx-embed env`."""

import platform
from importlib.metadata import PackageNotFoundError, version

from custom_kernels import cpu, twins
from custom_kernels.backends import default_backend
from custom_kernels.choice.op import Op
from custom_kernels.choice.switch import kernels_wanted
from custom_kernels.cpu import blas
from custom_kernels.ops import OPS
from mlx_embed.engine.device import accelerator, describe, resolve_device


def environment() -> dict[str, str]:
    """Names to sentences, in the order in which to show them."""
    native, switched_on = cpu.available(), kernels_wanted()
    rows = {
        "mlx-embed": _own_version(),
        "mlx": f"{version('mlx')}, with {accelerator() or 'no accelerator'}",
        "python": f"{platform.python_version()} on {platform.platform()}",
        "cpu": describe(resolve_device("cpu")),
    }
    if accelerator() is not None:
        rows["accelerator"] = describe(resolve_device("gpu"))
    rows["native cpu kernels"] = cpu.instruction_set() if native else cpu.why_unavailable()
    if native:
        rows["threads"] = str(cpu.num_threads())
    rows["blas of mlx's cpu ops"] = "OpenBLAS" if blas.active() else f"MLX's own. {blas.why_inactive()}"
    rows["decoder models"] = _decoders()
    rows["custom kernels"] = "on" if switched_on else "off, by MLX_EMBED_KERNELS"
    for op in OPS:
        rows[f"{op.name} on the cpu"] = _on_cpu(op) if native and switched_on else "MLX's ops"
        if default_backend() is not None:
            rows[f"{op.name} on {default_backend()}"] = _on_accelerator(op, switched_on)
    return rows


def _own_version() -> str:
    try:
        return version("mlx-embed")
    except PackageNotFoundError:
        return "from a checkout that is not installed"


def _decoders() -> str:
    try:
        return f"on MLX's ops, in the code of mlx-lm {version('mlx-lm')}"
    except PackageNotFoundError:
        return 'not without mlx-lm: pip install "mlx-embed[decoders]"'


def _on_cpu(op: Op) -> str:
    return "native kernel" if twins.native(op) else "a part of other native kernels"


def _on_accelerator(op: Op, switched_on: bool) -> str:
    backend = default_backend()
    if backend is None or not switched_on or backend not in op.kernels:
        return "MLX's ops"
    if backend == "metal":
        return "metal kernel or MLX's ops, whichever proves the faster"
    return f"{backend} kernel, once it has agreed with MLX's ops"
