#!/usr/bin/env bash
# Version:   mlx 0.32.4 on Linux's CPU, with numpy 2.4.6.
# Guess:     a quantized layer loses what rounding its weights loses. Products in half precision are summed in float32,
#            as MLX's matmul does on a CPU too.
# Behaviour: on the CPU quantized_matmul keeps its sum in the dtype of x, and adds one product after the other. In
#            bfloat16 the sum of 4096 ones is 256, and in float16 2048, where the step from one number to the next is 2.
#            A product with weights of 8 bits in bfloat16 ends 14 to 44 times as far from the exact one as that of
#            dequantize and matmul, and 5 to 15 times as far as rounding the weights to 8 bits has taken it. Modes that
#            sum a group at a time (mxfp4, mxfp8, nvfp4) are off by less than half of that. float32 is exact.
# Why:       converted models are mostly bfloat16 with quantized layers. A CPU - Linux without a GPU, CI, a machine for
#            tests - gives other vectors for them than a GPU, whose kernels sum in float32 (issue #963), worse with each
#            wider layer, and who compares the two blames the weights. Nothing was found about the CPU's sum.
# Seen (how far from the exact product with the same quantized weights, in parts of its length):
#   sum of 4096 ones:  float32 4096, float16 2048, bfloat16 256; by matmul in bfloat16 4096
#   width  384: bfloat16 2.3%, float16 0.28%, float32 0.00%; dequantized in bfloat16 0.17%; 8 bits instead of all 0.5%
#   width 1024: bfloat16 3.8%, float16 0.47%, float32 0.00%; dequantized in bfloat16 0.16%; 8 bits instead of all 0.5%
#   width 4096: bfloat16 7.5%, float16 0.99%, float32 0.00%; dequantized in bfloat16 0.17%; 8 bits instead of all 0.5%
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
case "$(uname -s)" in Darwin) mlx="mlx==0.32.4" ;; *) mlx="mlx[cpu]==0.32.4" ;; esac
"$work/venv/bin/pip" install --quiet "$mlx" numpy==2.4.6

cat > "$work/sums.py" <<'PY'
import sys

import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
DTYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}


def exact(x: mx.array, weight: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32), dtype=np.float64) @ np.array(weight.astype(mx.float32), dtype=np.float64).T


def off(product: mx.array, true: np.ndarray) -> float:
    return float(np.linalg.norm(np.array(product.astype(mx.float32)) - true) / np.linalg.norm(true))


def of_ones(dtype: mx.Dtype) -> float:
    rows = mx.ones((1, 4096), dtype=dtype)
    return mx.quantized_matmul(rows, *mx.quantize(rows, bits=8), bits=8).item()


sums = {name: of_ones(dtype) for name, dtype in reversed(DTYPES.items())}
row = mx.ones((1, 4096), dtype=mx.bfloat16)
dense = (row @ row.T).item()
print("sum of 4096 ones: ", ", ".join(f"{name} {value:g}" for name, value in sums.items()), end="")
print(f"; by matmul in bfloat16 {dense:g}")
random = np.random.default_rng(0)
far = {}
for width in (384, 1024, 4096):
    weight, x = (mx.array(random.standard_normal((rows, width)), dtype=mx.float32) for rows in (256, 8))
    for name, dtype in DTYPES.items():
        codes = mx.quantize(weight.astype(dtype), bits=8)
        rounded, rows = mx.dequantize(*codes, bits=8), x.astype(dtype)
        true = exact(rows, rounded)
        far[width, name] = off(mx.quantized_matmul(rows, *codes, bits=8), true)
        if name == "bfloat16":
            far[width, "dequantized"] = off(rows @ rounded.T, true)
        if name == "float32":
            far[width, "bits"] = off(mx.array(true, dtype=mx.float32), exact(x, weight))
    print(f"width {width:4}: bfloat16 {far[width, 'bfloat16']:.1%}", end="")
    print(f", float16 {far[width, 'float16']:.2%}, float32 {far[width, 'float32']:.2%}", end="")
    print(f"; dequantized in bfloat16 {far[width, 'dequantized']:.2%}", end="")
    print(f"; 8 bits instead of all {far[width, 'bits']:.1%}")
if dense != 4096 or any(far[width, "dequantized"] > 0.005 for width in (384, 1024, 4096)):
    sys.exit("matmul no longer sums in float32.")
if sums["bfloat16"] == 4096 or far[4096, "bfloat16"] < 0.02 or far[384, "bfloat16"] < 3 * far[384, "dequantized"]:
    sys.exit("quantized_matmul sums in float32 on the CPU now.")
PY
"$work/venv/bin/python" "$work/sums.py"
