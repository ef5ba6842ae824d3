"""The k nearest of many documents for several queries, in numpy alone.

python examples/search.py [MODEL]
"""

import sys

import numpy as np

from mlx_embed import EmbeddingModel

model = EmbeddingModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "intfloat/e5-small-v2")
documents = [f"Article {n} is about {topic}." for n in range(50) for topic in ("wings", "soup", "trains", "violins")]
vectors = model.encode_document(documents)
queries = ["music", "cooking"]
scores = model.similarity(model.encode_query(queries), vectors)
best = np.argsort(-scores, axis=1, kind="stable")[:, :3]
for query, places in zip(queries, best, strict=True):
    print(query, [documents[place] for place in places])
