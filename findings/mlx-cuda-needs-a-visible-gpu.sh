#!/usr/bin/env bash
# Version:   mlx 0.32.4 with mlx-cuda-13, on a machine with an NVIDIA GPU (seen on an H200).
# Guess:     with CUDA_VISIBLE_DEVICES="" MLX's CUDA build is MLX on the CPU: mx.cuda.is_available() is false, and all else
#            works, as in PyTorch.
# Behaviour: mlx.core cannot be imported: it asks CUDA for memory as it is loaded.
# Why:       hiding the GPUs is how one runs a program on the CPU for once, or a worker of many that is to leave the GPU
#            alone. Whoever catches the ImportError takes MLX for not installed. mx.set_default_device(mx.cpu) computes on
#            the CPU, with the GPU in sight.
# Run:       as it is, on Linux with a driver for CUDA 13; bash, python3 and nvidia-smi are needed. It downloads CUDA's
#            libraries, which are large.
# Seen:      the import with the GPU hidden, by itself on one NVIDIA H200; this script as a whole was not run there.
#   hidden: ImportError: cudaMallocManaged(&data, size) failed: no CUDA-capable device is detected
set -euo pipefail
if ! nvidia-smi --list-gpus 2>/dev/null | grep -q "^GPU"; then echo "skipped: needs an NVIDIA GPU"; exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cuda13]==0.32.4"

cat > "$work/add.py" <<'PY'
import sys

try:
    import mlx.core as mx
except ImportError as error:
    sys.exit(f"{sys.argv[1]}: ImportError: {error}")
mx.set_default_device(mx.cpu)
print(f"{sys.argv[1]}: {int(mx.ones(1).item() + 1)} on the CPU")
PY
"$work/venv/bin/python" "$work/add.py" "in sight"
if CUDA_VISIBLE_DEVICES="" "$work/venv/bin/python" "$work/add.py" "hidden"; then
  echo "Without a GPU in sight MLX can be imported."
  exit 1
fi
