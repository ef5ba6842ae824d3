#!/usr/bin/env bash
# Version:   mlx 0.32.4 with mlx-cuda-13 and numpy 2.4.6, on a machine with several NVIDIA GPUs.
# Guess:     mx.clear_cache() frees memory and changes nothing else.
# Behaviour: it leaves the thread that calls it on the last GPU, though all of MLX's work is on GPU 0. Where the thread
#            has copied something before, MLX believes it to be on 0 still. The next CPU array that takes a buffer over
#            from the GPU's work fails: cudaMemcpy, invalid argument. Cleared by a thread of its own (C) nothing fails.
# Why:       a server computes on the GPU in one thread, takes texts in and reads files in another, and clears the cache
#            when idle. It fails at a later copy, which has nothing to do with the clearing, and never on one GPU.
# Run:       as it is, on Linux with a driver for CUDA 13; bash, python3 and nvidia-smi are needed. It downloads CUDA's
#            libraries, which are large. With CUDA_VISIBLE_DEVICES=0 there is no fault, and nothing is run.
# Seen:      the Python part's steps, run by themselves on two NVIDIA H200 (driver 580); this script as a whole was not run
#            there. Each number is the GPU that the thread is on after the step.
#   B                                ['cpu ok 0', 'gpu ok 0', 'cpu ok 0', 'cleared 1', 'gpu ok 0', 'RuntimeError: cudaMemcpy(data, buf.data, buf.size, kind) failed: invalid argument']
#   C cleared by a thread            ['cpu ok 0', 'gpu ok 0', 'cpu ok 0', 'cleared 1', 'gpu ok 0', 'cpu ok 0']
#   D                                ['gpu ok 0', 'cpu ok 0', 'cleared 1', 'gpu ok 0', 'RuntimeError: cudaMemcpy(data, buf.data, buf.size, kind) failed: invalid argument']
set -euo pipefail
gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c "^GPU") || true
if [[ $gpus -lt 2 || ${CUDA_VISIBLE_DEVICES-0,1} != *,* ]]; then echo "skipped: needs two NVIDIA GPUs"; exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cuda13]==0.32.4" numpy==2.4.6

cat > "$work/clear.py" <<'PY'
import ctypes
import sys
import threading
from collections.abc import Callable

import mlx.core as mx
import numpy as np

CUDA = ctypes.CDLL("libcuda.so.1")
ROWS = (1, 7, 32, 64, 300, 1000, 5000)


def device() -> int:
    """The GPU that the calling thread is on, as the driver has it."""
    found = ctypes.c_int(-1)
    return found.value if CUDA.cuCtxGetDevice(ctypes.byref(found)) == 0 else -1


def gpu() -> str:
    with mx.stream(mx.gpu):
        mx.eval([mx.ones((rows, 64)) * 2 + 1 for rows in ROWS])
    return f"gpu ok {device()}"


def cpu() -> str:
    with mx.stream(mx.cpu):
        mx.eval([mx.array(np.ones((rows, 64), np.float32)) + 1 for rows in ROWS])
    return f"cpu ok {device()}"


def clear() -> str:
    mx.clear_cache()
    return f"cleared {device()}"


def here(work: Callable[[], str]) -> str:
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def there(work: Callable[[], str]) -> str:
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(here(work)))
    thread.start()
    thread.join()
    return said[0]


cases = {
    "B": lambda: [here(cpu), there(gpu), here(cpu), here(clear), there(gpu), here(cpu)],
    "C cleared by a thread": lambda: [here(cpu), there(gpu), here(cpu), there(clear), there(gpu), here(cpu)],
    "D": lambda: [there(gpu), here(cpu), here(clear), there(gpu), here(cpu)],
}
said = cases[sys.argv[1]]()
print(f"{sys.argv[1]:32} {said}", flush=True)
if "cleared 0" in said:
    sys.exit("The thread stays on its GPU.")
if ("failed: invalid argument" in said[-1]) != (not sys.argv[1].startswith("C")):
    sys.exit("The copy after the clearing no longer fails, or fails in another way.")
PY
for case in B "C cleared by a thread" D; do "$work/venv/bin/python" "$work/clear.py" "$case"; done  # a process each
