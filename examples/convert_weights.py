"""A checkpoint in half the bytes, verified against the original.

python examples/convert_weights.py MODEL FOLDER
"""

import sys

from mlx_embed import EmbeddingModel, convert

if len(sys.argv) != 3:
    sys.exit(f"usage: python {sys.argv[0]} MODEL FOLDER")
report = convert(sys.argv[1], sys.argv[2], dtype="float16")
print(f"{report.source_bytes} bytes became {report.destination_bytes}")
print(f"lowest cosine to the original: {report.min_cosine:.5f}")
print(EmbeddingModel.from_pretrained(sys.argv[2]))
