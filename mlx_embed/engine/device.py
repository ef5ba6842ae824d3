"""Device and dtype by name, and what MLX is told before it first uses an accelerator."""

import os
from pathlib import Path

import mlx.core as mx

from custom_kernels.backends import mlx_version
from custom_kernels.choice.tune import cache_folder
from mlx_embed.arguments import positive_number
from mlx_embed.errors import warn

DTYPES: dict[str, mx.Dtype] = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
# What the native CPU kernels have beside them: weights and the numbers they are multiplied with, rounded to 8 bits.
NATIVE_DTYPES: dict[str, mx.Dtype] = {**DTYPES, "int8": mx.int8}
_GPU_NAMES = {"gpu": None, "metal": "metal", "mps": "metal", "cuda": "cuda"}


def accelerator() -> str | None:
    """Either "metal" or "cuda" where MLX can use one here, else None: so too on a Mac that shows no GPU."""
    if mx.metal.is_available():
        return "metal" if mx.is_available(mx.Device(mx.gpu)) else None
    return "cuda" if mx.cuda.is_available() else None


def resolve_device(name: str | mx.Device | None) -> mx.Device:
    """The device of a name: "cpu", "gpu", "metal" (or "mps"), "cuda"; None is MLX's default, or the CPU without one.

    Raises:
        ValueError: another name, or an accelerator that this machine or this MLX build does not have.
    """
    if name is None:
        device = mx.default_device()
        if is_cpu(device) or accelerator():
            return device
        warn(
            "MLX finds no GPU here, as on some virtual Macs, so the model is computed on the CPU; "
            'device="cpu" says so beforehand.'
        )
        return mx.Device(mx.cpu)
    if isinstance(name, mx.Device):
        return name if is_cpu(name) else resolve_device("gpu")
    if name == "cpu":
        return mx.Device(mx.cpu)
    if name not in _GPU_NAMES:
        raise ValueError(f'device {name!r} is not one of "cpu", {", ".join(repr(n) for n in _GPU_NAMES)}.')
    here = accelerator()
    if here is None or _GPU_NAMES[name] not in (None, here):
        raise ValueError(
            f"device {name!r} was asked for, but MLX {mlx_version()} finds {here or 'no accelerator'} here. "
            'Install mlx[cuda13] or mlx[cuda12] for an NVIDIA GPU, or use device="cpu".'
        )
    return mx.Device(mx.gpu)


def is_cpu(device: mx.Device) -> bool:
    """Whether this is the CPU."""
    return bool(device.type == mx.DeviceType.cpu)


def describe(device: mx.Device) -> str:
    """The device as a person would name it: "cuda: NVIDIA H100 ..."."""
    kind = "cpu" if is_cpu(device) else accelerator() or "gpu"
    return f"{kind}: {mx.device_info(device).get('device_name', 'unknown')}"


def resolve_dtype(name: str | mx.Dtype | None, device: mx.Device) -> mx.Dtype | None:
    """The dtype to compute in; None keeps the checkpoint's on an accelerator, and means float32 on the CPU.

    "int8" is of the native CPU kernels alone: see `NATIVE_DTYPES`.

    Raises:
        ValueError: a dtype other than float32, float16 and bfloat16, and int8 on a CPU.
    """
    if name is None:
        return mx.float32 if is_cpu(device) else None
    if isinstance(name, mx.Dtype):
        name = str(name).removeprefix("mlx.core.")
    if name not in NATIVE_DTYPES:
        raise ValueError(f"dtype {name!r} is not one of {', '.join(NATIVE_DTYPES)}.")
    if name not in DTYPES and not is_cpu(device):
        raise ValueError(
            f'dtype {name!r} is of the native CPU kernels: pass device="cpu", or take one of {", ".join(DTYPES)}; '
            "`mlx-embed convert --quantize 8` makes weights small for a GPU."
        )
    return NATIVE_DTYPES[name]


def checked_budget(batch_tokens: int | None, default: int) -> int:
    """The tokens of a batch: those asked for, or a default.

    Raises:
        TypeError: something that is no whole number.
        ValueError: a number below 1.
    """
    return default if batch_tokens is None else positive_number("batch_tokens", batch_tokens, "tokens")


def prepare_accelerator() -> None:
    """Settings of MLX's CUDA back end, which reads them at its first use; what the user has set stays.

    float32 means float32 rather than TF32, and compiled kernels go to a folder of this user's alone, since MLX's
    default is a predictable path under the shared temporary folder.
    """
    if mx.cuda.is_available():
        # Not on Metal, where it turns the neural accelerators off for float32.
        switch_tf32_off()
        # Else MLX gathers launches in CUDA graphs, which the GPU gets late, and which cost a query more than they save.
        os.environ.setdefault("MLX_USE_CUDA_GRAPHS", "0")
        # With graphs, so many launches are one: with 100, MLX's own number, the GPU of an H100 waits until the host has
        # gone through the whole of a forward pass.
        os.environ.setdefault("MLX_MAX_OPS_PER_BUFFER", "10")
    if "MLX_PTX_CACHE_DIR" not in os.environ:
        try:
            folder = cache_folder() / "ptx"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, RuntimeError):  # it cannot be written, or there is no home
            import tempfile

            folder = Path(tempfile.mkdtemp(prefix="mlx-embed-"))
        os.environ["MLX_PTX_CACHE_DIR"] = str(folder)


def switch_tf32_off() -> None:
    """Let products of float32 be float32 on every device, if MLX has made none yet; what the user has set stays."""
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
