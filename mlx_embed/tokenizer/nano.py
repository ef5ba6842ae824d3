"""nanotoken, which makes the ids of BERT's kind of WordPiece; an extra, `fast`."""

import os
from collections.abc import Callable

import numpy as np
from tokenizers import Tokenizer, models

from mlx_embed.ids import Ids
from mlx_embed.tokenizer.classes import normalizer_steps, state
from mlx_embed.tokenizer.tokens import Frame

# Words that each thread of nanotoken remembers, in some 16 MiB; its own choice is eight times as many.
CACHE_ENTRIES = 2**17


def known(library: Tokenizer) -> bool:
    """Whether a tokenizer is of the kind that nanotoken was compared with at length: BERT's."""
    allowed = {"BertNormalizer", "Lowercase"}
    return (
        isinstance(library.model, models.WordPiece)
        and {part.get("type") for part in normalizer_steps(library.normalizer)} <= allowed
        and state(library.pre_tokenizer).get("type") == "BertPreTokenizer"
        and not library.encode_special_tokens
    )


def maker(library: Tokenizer, frame: Frame) -> Callable[..., Ids] | None:
    """What makes ids of texts on all cores, with special tokens if there are any in `frame`; None without nanotoken."""
    try:
        import nanotoken
    except ImportError:
        return None
    if not os.environ.get("NANOTOKEN_CACHE_ENTRIES"):
        nanotoken.set_cache_entries(CACHE_ENTRIES)
    made = nanotoken.Tokenizer.from_json(library.to_str())

    def make(texts: list[str], whole: bool = False) -> Ids:
        ids = made.encode_batch(texts, add_special_tokens=len(frame) > 0)
        return Ids(ids.ids.view(np.int32), ids.offsets)

    return make
