#!/usr/bin/env bash
# Version:   nvidia-cuda-nvrtc 13.5.37 (CUDA 13.5); 13.4.92, 13.2.86, 13.0.88 and, as nvidia-cuda-nvrtc-cu12, 12.9.86,
#            12.4.127 and 12.0.76 do the same.
# Guess:     integers that fit, divided and their remainders taken, make an index; the compiler may do what it likes but
#            for the element that is read.
# Behaviour: in an unrolled loop, of two indices that differ by 4 before a division by 8 the second is two elements (8
#            bytes) off: the address is kept as the first one's and a constant, and the constant still has the 4, which
#            the division drops. No warning. Where the second index is alone in the loop it is right.
# Why:       weights that are laid out again in shared memory so that a warp reads them side by side are indexed just so.
#            With floats the wrong numbers are read in silence. With vectors of 16 bytes the address is no multiple of
#            16: on an NVIDIA H200 a kernel for rotary positions ended with "misaligned address", where the same source,
#            compiled for a CPU, was right.
# Run:       as it is; it needs Linux on x86-64, bash and python3, and no GPU: what is wrong stands in the PTX.
# Seen:
#   wanted, both:   0 128 32 160 64 192 96 224
#   in the PTX:     0 136 32 168 64 200 96 232
#   wanted, second: 128 160 192 224
#   in the PTX:     128 160 192 224
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-deps nvidia-cuda-nvrtc==13.5.37

cat > "$work/offsets.py" <<'PY'
import ctypes
import re
import sys
from pathlib import Path

(library,) = Path(sys.prefix).rglob("libnvrtc.so.13")
nvrtc = ctypes.CDLL(str(library))

# Of 8 columns each thread has the first 4 and the second 4; all first fours come before all second ones.
KERNEL = """
__device__ int place(int column) {
  return ((column / 64 * 2 + column / 4 % 2) * 8 + column % 64 / 8) * 4;
}

extern "C" __global__ void read(const float* in, float* out) {
  __shared__ float numbers[128];
  for (int i = threadIdx.x; i < 128; i += 64) numbers[i] = in[i];
  __syncthreads();
  const int part = threadIdx.x % 2;
  float sum = 0.0f;
  for (int i = 0; i < 4; ++i) {
    const int column = (part + 2 * i) * 8;
    sum += READ;
  }
  out[threadIdx.x] = sum;
}
"""


def place(column: int) -> int:
    return ((column // 64 * 2 + column // 4 % 2) * 8 + column % 64 // 8) * 4


def offsets(read: str) -> list[int]:
    """Bytes from the thread's first address to each number that it reads, in the order of the addresses."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    source = KERNEL.replace("READ", read).encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"read.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * 1)(b"--gpu-architecture=compute_90")
    assert nvrtc.nvrtcCompileProgram(program, 1, options) == 0
    assert nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)) == 0
    ptx = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetPTX(program, ptx) == 0
    loads = re.findall(r"ld\.shared\.f32\s+%f\d+, \[(%\w+)(?:\+(\d+))?\]", ptx.value.decode())
    assert len({base for base, _ in loads}) == 1, "The loads have several bases now."
    return sorted(int(offset or 0) for _, offset in loads)


both = sorted(4 * place(16 * i + four) for i in range(4) for four in (0, 4))
second = sorted(4 * place(16 * i + 4) for i in range(4))
found_both = offsets("numbers[place(column)] + numbers[place(column + 4)]")
found_second = offsets("numbers[place(column + 4)]")


def shown(numbers: list[int]) -> str:
    """The first fours and the second ones of each pass beside each other."""
    half = len(numbers) // 2
    pairs = zip(numbers[:half], numbers[half:]) if len(numbers) == 8 else [(number,) for number in numbers]
    return " ".join(str(number) for pair in pairs for number in pair)


print("wanted, both:  ", shown(both))
print("in the PTX:    ", shown(found_both))
print("wanted, second:", shown(second))
print("in the PTX:    ", shown(found_second))
if found_second != second:
    sys.exit("The second index is wrong by itself now.")
if found_both == both:
    sys.exit("NVRTC no longer adds 8 bytes.")
if found_both != sorted(n + 8 * (n >= 128) for n in both):
    sys.exit("NVRTC adds something else.")
PY
"$work/venv/bin/python" "$work/offsets.py"
