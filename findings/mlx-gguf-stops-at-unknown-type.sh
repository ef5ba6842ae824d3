#!/usr/bin/env bash
# Version:   mlx 0.32.4, its CPU wheel for Linux, with gguf 0.19.0 and numpy 2.4.6.
# Guess:     mx.load of a GGUF file gives all of its tensors, or raises where it meets a type that it cannot read, as it
#            does for Q5_0.
# Behaviour: a tensor of a type newer than its table (MXFP4, TQ1_0, TQ2_0) is taken for the end of the file. The tensors
#            before it are returned; it and all that follow are missing, without an error or a warning. Where it stands
#            first, the dictionary is empty.
# Why:       one tensor that nobody needs takes away readable ones of float32. The metadata is whole, and Module.update()
#            accepts what came: the other layers stay as they were drawn. (load_weights() is strict, and complains.)
# Seen:
#   F16 third of five: gguf reads 5 tensors, MLX returns 5
#   Q4_0 third of five: gguf reads 5 tensors, MLX returns 5
#   Q5_0 third of five: gguf reads 5 tensors, MLX raises: [load_gguf] gguf_tensor_to_f16 failed
#   MXFP4 third of five: gguf reads 5 tensors, MLX returns 2
#   TQ1_0 third of five: gguf reads 5 tensors, MLX returns 2
#   TQ2_0 third of five: gguf reads 5 tensors, MLX returns 2
#   MXFP4 first of five: gguf reads 5 tensors, MLX returns 0
#   MXFP4 third: of layers 0, 1, 3, 4 in float32, update() sets [0, 1] and leaves [3, 4] as drawn
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" gguf==0.19.0 numpy==2.4.6

cat > "$work/stops.py" <<'PY'
import sys
import warnings

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Type
from mlx import nn
from mlx.utils import tree_unflatten

warnings.simplefilter("error")
mx.set_default_device(mx.cpu)
path = sys.argv[1]
rows = np.random.default_rng(0).standard_normal((5, 256, 256)).astype(np.float32)


def written(kind: Type, at: int) -> int:
    """Writes five matrices in float32 but for one of the kind; returns how many the format's own package reads."""
    writer = gguf.GGUFWriter(path, "bert")
    for number, matrix in enumerate(rows):
        if number != at:
            writer.add_tensor(f"layers.{number}.weight", matrix)
        else:
            writer.add_tensor(f"layers.{number}.weight", gguf.quants.quantize(matrix, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = gguf.GGUFReader(path).tensors
    for matrix, tensor in zip(rows, tensors, strict=True):
        read = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if np.corrcoef(read.ravel(), matrix.ravel())[0, 1] < 0.4:
            sys.exit("gguf no longer reads the tensors as they were written.")
    return len(tensors)


place = {0: "first", 2: "third"}
cases = [(Type.F16, 2, 5), (Type.Q4_0, 2, 5), (Type.Q5_0, 2, None)]
cases += [(Type.MXFP4, 2, 2), (Type.TQ1_0, 2, 2), (Type.TQ2_0, 2, 2), (Type.MXFP4, 0, 0)]
for kind, at, expected in cases:
    read, came = written(kind, at), None
    try:
        loaded = mx.load(path)
        came = sum(name.endswith(".weight") for name in loaded)
        result = f"returns {came}"
    except Exception as error:
        result = f"raises: {error}"
    print(f"{kind.name} {place[at]} of five: gguf reads {read} tensors, MLX {result}")
    if read != 5 or came != expected:
        sys.exit(f"A file with {kind.name} is now read in another way.")

written(Type.MXFP4, 2)
loaded, metadata = mx.load(path, return_metadata=True)
if "general.architecture" not in metadata:
    sys.exit("The metadata is no longer whole.")
model = nn.Sequential(*[nn.Linear(256, 256, bias=False) for _ in range(5)])
model.update(tree_unflatten(list(loaded.items())))
equal = [np.array_equal(np.array(layer.weight), matrix) for layer, matrix in zip(model.layers, rows, strict=True)]
read, drawn = ([number for number in (0, 1, 3, 4) if equal[number] is now] for now in (True, False))
print(f"MXFP4 third: of layers 0, 1, 3, 4 in float32, update() sets {read} and leaves {drawn} as drawn")
if read != [0, 1]:
    sys.exit("The tensors behind one of an unknown type are no longer lost.")
try:
    model.load_weights(list(loaded.items()))
    sys.exit("load_weights() is no longer strict.")
except ValueError:
    pass
PY
"$work/venv/bin/python" "$work/stops.py" "$work/model.gguf"
