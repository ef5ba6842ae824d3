"""Texts to vectors, and which of them is nearest to a question.

python examples/embed.py [MODEL]
"""

import sys

from mlx_embed import EmbeddingModel

model = EmbeddingModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "intfloat/e5-small-v2")
documents = ["The wing stalls.", "A recipe for lentil soup.", "Sound travels at 343 metres a second."]
vectors = model.encode_document(documents)
query = model.encode_query("How fast is sound?")
scores = model.similarity(query, vectors)[0]
print(f"{vectors.shape[0]} vectors of {vectors.shape[1]} dimensions")
print(f"nearest: {documents[scores.argmax()]}")
