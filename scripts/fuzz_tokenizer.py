#!/usr/bin/env python3
"""Compare the ids that the fast tokenizers make of random strings with those of tokenizers.

    python scripts/fuzz_tokenizer.py [--strings 1000000] [--seed N] [FOLDER ...]

Needs the extra `fast` and the native kernels. Without folders of checkpoints: the tiny ones of the tests,
all-MiniLM-L6-v2 if it is here, that one's vocabulary with the other ways in which BERT's tokenizers treat capitals,
accents and ideographs, and tokenizers of other kinds that are trained on the documentation. Each gets a share of the
strings, of which whatever knows it makes ids. Prints the first strings that differ, and exits with 1 where there are
any.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path
from random import SystemRandom

from tokenizers import Tokenizer, normalizers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WINDOW = 5000
FLAGS = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
VARIANTS = (
    (True, True, False, False),
    (True, False, None, True),
    (False, True, True, False),
    (True, True, False, True),
)


def main() -> int:
    from mlx_embed.tokenizer import framed, nano, pieces
    from tests.conftest import minilm_folder
    from tests.mlx_embed.tokenizer import trained
    from tests.mlx_embed.tokenizer.strings import strings

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    options = parser.parse_args()
    folders = options.folders or [ROOT / "tests/data/tiny-bert", ROOT / "tests/data/tiny-mpnet"]
    if not options.folders and (minilm := minilm_folder()) is not None:
        folders.append(minilm)
    libraries = {str(folder): Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in folders}
    if not options.folders:
        for flags in VARIANTS:
            library = Tokenizer.from_file(str(folders[-1] / "tokenizer.json"))
            library.normalizer = normalizers.BertNormalizer(**dict(zip(FLAGS, flags, strict=True)))
            libraries[f"{folders[-1]} {dict(zip(FLAGS, flags, strict=True))}"] = library
        libraries |= {kind: trained.library(kind, 8000) for kind in trained.KINDS}
    print(f"seed {options.seed}", flush=True)
    bad = 0
    for name, library in libraries.items():
        library.no_padding()
        library.no_truncation()
        kinds = [kind for kind in (nano, pieces) if kind.known(library)]
        makers = {kind.__name__: kind.maker(library, framed(library)) for kind in kinds}
        if not makers or None in makers.values():
            print(f"{name}: what is fast does not take it, or is not here: {makers}.")
            bad += 1
            continue
        given = strings(library, options.seed)
        left = options.strings // len(libraries)
        while left > 0:
            texts = list(islice(given, min(WINDOW, left)))
            left -= len(texts)
            expected = [x.ids for x in library.encode_batch_fast(texts, add_special_tokens=True)]
            for maker, make in makers.items():
                found = make(texts, whole=True)
                wrong = [text for text, a, b in zip(texts, found, expected, strict=True) if a.tolist() != b]
                for text in wrong[: max(10 - bad, 0)]:
                    print(f"{name}, {maker}: {json.dumps(text)}", flush=True)
                bad += len(wrong)
    print(f"{options.strings} strings, {len(libraries)} tokenizers, {bad} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
