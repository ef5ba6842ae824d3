"""Device and dtype by name, and the one thread on which all MLX work of the process runs."""

import atexit
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import mlx.core as mx

from custom_kernels.choice.tune import cache_folder

Result = TypeVar("Result")

DTYPES: dict[str, mx.Dtype] = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
_GPU_NAMES = {"gpu": None, "metal": "metal", "mps": "metal", "cuda": "cuda"}


def accelerator() -> str | None:
    """Either "metal" or "cuda" where MLX can use one here, else None."""
    return "metal" if mx.metal.is_available() else "cuda" if mx.cuda.is_available() else None


def resolve_device(name: str | mx.Device | None) -> mx.Device:
    """The device of a name: "cpu", "gpu", "metal" (or "mps"), "cuda"; None is MLX's default.

    Raises:
        ValueError: another name, or an accelerator that this machine or this MLX build does not have.
    """
    if name is None:
        return mx.default_device()
    if isinstance(name, mx.Device):
        return name if is_cpu(name) else resolve_device("gpu")
    if name == "cpu":
        return mx.Device(mx.cpu)
    if name not in _GPU_NAMES:
        raise ValueError(f'device {name!r} is not one of "cpu", {", ".join(repr(n) for n in _GPU_NAMES)}.')
    here = accelerator()
    if here is None or _GPU_NAMES[name] not in (None, here):
        raise ValueError(
            f"device {name!r} was asked for, but MLX {version('mlx')} finds {here or 'no accelerator'} here. "
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

    MLX's CPU kernels are slower in half precision than in float32.

    Raises:
        ValueError: a dtype other than float32, float16 and bfloat16.
    """
    if name is None:
        return mx.float32 if is_cpu(device) else None
    if isinstance(name, mx.Dtype):
        name = str(name).removeprefix("mlx.core.")
    if name not in DTYPES:
        raise ValueError(f"dtype {name!r} is not one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def prepare_accelerator() -> None:
    """Settings of MLX's CUDA back end, which reads them at its first use; what the user has set stays.

    float32 means float32 rather than TF32, and compiled kernels go to a folder of this user's alone, since MLX's
    default is a predictable path under the shared temporary folder.
    """
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    if mx.cuda.is_available():
        # Launches that MLX gathers before the GPU gets them. With its 100, the GPU of an H100 waits until the host has
        # gone through the whole of a forward pass, which of some thousand tokens then takes half as long again.
        os.environ.setdefault("MLX_MAX_OPS_PER_BUFFER", "10")
    if "MLX_PTX_CACHE_DIR" not in os.environ:
        try:
            folder = cache_folder() / "ptx"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, RuntimeError):  # it cannot be written, or there is no home
            folder = Path(tempfile.mkdtemp(prefix="mlx-embed-"))
        os.environ["MLX_PTX_CACHE_DIR"] = str(folder)


class _Worker:
    """A thread for MLX work: its streams and compiled graphs belong to the thread that made them.

    It is a daemon that never ends: MLX can abort the process at exit where a thread that used it has ended before,
    which is what an executor's threads do.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], None]] | None = None
        self._pid = 0

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """Run `work` on the thread, after all that was submitted before."""
        future: Future[Result] = Future()

        def task() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._started().put(task)
        return future

    def run(self, work: Callable[[], Result]) -> Result:
        """Run `work` on the thread and wait for what it returns or raises."""
        return self.submit(work).result()

    def _started(self) -> "SimpleQueue[Callable[[], None]]":
        with self._lock:
            if self._queue is None:
                self._queue = SimpleQueue()
                self._pid = os.getpid()
                threading.Thread(target=self._serve, args=(self._queue,), name="mlx-embed", daemon=True).start()
                # Leaving while a batch is being computed would pull MLX away from under it.
                atexit.register(self._drain)
            elif self._pid != os.getpid():
                raise RuntimeError(
                    "This process was forked after mlx_embed had started, and MLX does not survive a fork. Load the "
                    'model in the child only, or start processes with multiprocessing\'s "spawn" method.'
                )
            return self._queue

    def _drain(self) -> None:
        if self._pid == os.getpid():
            self.run(lambda: None)

    @staticmethod
    def _serve(queue: "SimpleQueue[Callable[[], None]]") -> None:
        while True:
            queue.get()()


worker = _Worker()
