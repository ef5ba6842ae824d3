"""A document that is longer than the model takes: its beginning, or the mean of all of its chunks.

python examples/long_documents.py [MODEL]
"""

import sys

from mlx_embed import EmbeddingModel

model = EmbeddingModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "intfloat/e5-small-v2")
document = "The wing stalls. " * 300 + "A recipe for lentil soup."
vectors, info = model.encode([document], long_text="mean_of_chunks", return_info=True)
print(f"{info.token_counts[0]} tokens in {info.chunks[0]} chunks of up to {model.max_seq_length} tokens")
beginning = model.encode([document[:200]])
print(f"similarity to its beginning: {model.similarity(vectors, beginning)[0, 0]:.3f}")
