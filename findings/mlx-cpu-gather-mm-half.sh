#!/usr/bin/env bash
# Version:   mlx 0.32.4, its CPU wheel for Linux, with numpy 2.4.6.
# Guess:     mx.gather_mm takes float16 and bfloat16 on the CPU: x @ w[indices] does, and so does mx.gather_qmm.
# Behaviour: it makes an array of the right shape and dtype, and the error ("Currently only supports float32") comes
#            only when that is evaluated, maybe many lines later, and then for all that was asked for together.
# Why:       gather_mm is how a mixture of experts is computed, and such embedding models are published in half precision.
#            On a CPU, as in tests, they load and build their graph and fail at the first vector; quantized they work.
#            A try around the call, to fall back to x @ w[indices], never sees the error.
# Seen:
#   float32:
#      x @ w[indices]: 64
#      gather_qmm: 64
#      gather_mm: (4, 1, 64), 64
#   float16:
#      x @ w[indices]: 64
#      gather_qmm: 64
#      gather_mm: (4, 1, 64), when evaluated [GatherMM::eval] Currently only supports float32.
#   bfloat16:
#      x @ w[indices]: 64
#      gather_qmm: 64
#      gather_mm: (4, 1, 64), when evaluated [GatherMM::eval] Currently only supports float32.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.4.6

cat > "$work/gather.py" <<'PY'
import sys

import mlx.core as mx

mx.set_default_device(mx.cpu)
indices = mx.array([0, 0, 1, 1])
for dtype in (mx.float32, mx.float16, mx.bfloat16):
    x, w = mx.ones((4, 1, 64), dtype), mx.ones((2, 64, 64), dtype)
    print(f"{str(dtype).split('.')[-1]}:")
    others = {"x @ w[indices]": x @ w[indices], "gather_qmm": mx.gather_qmm(x, *mx.quantize(w), rhs_indices=indices)}
    for name, product in others.items():
        print(f"   {name}: {product[0, 0, 0].item():g}")
        if abs(product[0, 0, 0].item() - 64) > 0.5:
            sys.exit("The other products no longer work.")
    product = mx.gather_mm(x, w, rhs_indices=indices)
    print(f"   gather_mm: {product.shape}", end=", ")
    try:
        mx.eval(product)
        said = f"{product[0, 0, 0].item():g}"
    except RuntimeError as error:
        said = f"when evaluated {error}"
    print(said)
    if ("only supports float32" in said) != (dtype != mx.float32):
        sys.exit("gather_mm no longer fails for half precision alone.")
PY
"$work/venv/bin/python" "$work/gather.py"
