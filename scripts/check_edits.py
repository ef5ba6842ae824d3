"""Edit a folder at random, index it after each few edits, and compare with an index that is made anew.

PYTHONPATH=. python scripts/check_edits.py [SCRIPTS] [MODEL]
"""

import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from mlx_embed import EmbeddingModel
from mlx_embed.index import Index
from mlx_embed.index.chunks import Chunking
from tests.mlx_embed.index import edits


def main(scripts: int, model: EmbeddingModel) -> int:
    done: Counter[str] = Counter()
    wrong = 0
    for seed in range(scripts):
        chance = random.Random(seed)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "root")
            root.mkdir()
            index = Index.create(Path(folder, "index"), model, chunker=Chunking(24, 4).name)
            for step in range(10):
                done.update(edits.edit(root, chance) for _ in range(chance.randrange(1, 8)))
                index.sync(root)
                with edits.made(Path(folder, f"anew{step}"), model, root) as anew:
                    found = edits.differences(index, anew)
                if found:
                    wrong += 1
                    print(f"script {seed}, step {step}: {found[:3]}", flush=True)
                    break
            index.check()
            index.close()
    print(f"{scripts} scripts, {done.total()} edits ({dict(sorted(done.items()))}): {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    folder = sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parents[1] / "tests" / "data" / "tiny-bert"
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, EmbeddingModel.from_pretrained(folder, device="cpu")))
