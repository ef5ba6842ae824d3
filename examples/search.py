"""The k nearest of many documents for several queries, in numpy.

python examples/search.py [MODEL]
"""

import sys

from mlx_embed import EmbeddingModel, search

model = EmbeddingModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "intfloat/e5-small-v2")
documents = [f"Article {n} is about {topic}." for n in range(50) for topic in ("wings", "soup", "trains", "violins")]
vectors = model.encode_document(documents)
queries = ["music", "cooking"]
hits = search(model.encode_query(queries), vectors, k=3)
for query, places in zip(queries, hits.places, strict=True):
    print(query, [documents[place] for place in places])
