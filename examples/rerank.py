"""Documents in the order of their relevance to a query.

python examples/rerank.py [MODEL]
"""

import sys

from mlx_embed import CrossEncoder

model = CrossEncoder.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "cross-encoder/ms-marco-MiniLM-L6-v2")
documents = ["The wing stalls.", "Sound travels at 343 metres a second.", "A recipe for lentil soup."]
for entry in model.rank("How fast is sound?", documents, return_documents=True):
    print(f"{entry['score']:.4f}  {entry['text']}")
