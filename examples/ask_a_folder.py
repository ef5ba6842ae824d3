"""Retrieval for RAG over a folder: index what has changed, and put the passages that answer a question into a prompt.

python examples/ask_a_folder.py [MODEL] [FOLDER] [QUESTION]
"""

import sys
import tempfile
from pathlib import Path

from mlx_embed import EmbeddingModel
from mlx_embed.index import Index
from mlx_embed.index.chunks import Chunking

arguments = dict(enumerate(sys.argv))
folder = Path(arguments.get(2) or Path(__file__).parent)
question = arguments.get(3, "How are the nearest documents found?")
model = EmbeddingModel.from_pretrained(arguments.get(1, "intfloat/e5-small-v2"))

with tempfile.TemporaryDirectory() as place:  # name a folder of your own, and the next run embeds only what has changed
    chunking = Chunking.checked(model, tokens=min(200, model.max_seq_length))
    with Index.create(place, model, chunker=chunking.name, exist_ok=True) as index:
        print(index.sync(folder))
        hits = index.search(question, k=3)

passages = "\n\n".join(f"[{n}] {hit.path}:{hit.line_start}\n{hit.text}" for n, hit in enumerate(hits, start=1))
print(f"Answer by these passages alone, and name them by their numbers.\n\n{passages}\n\nQuestion: {question}")
