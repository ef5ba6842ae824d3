#!/usr/bin/env python3
"""Compare the ids that the fast tokenizers make of random strings with those of tokenizers.

    python scripts/fuzz_tokenizer.py [--strings 1000000] [--composed 2000] [--seed N] [FOLDER ...]

Needs the extra `fast` and the native kernels. Without folders of checkpoints: the tiny ones of the tests,
all-MiniLM-L6-v2 if it is here, that one's vocabulary with the other ways in which BERT's tokenizers treat capitals,
accents and ideographs, and tokenizers of other kinds that are trained on the documentation. Each gets a share of the
strings, of which whatever knows it makes ids. Then so many tokenizers as --composed says are put together at random of
all parts that `tokenizers` has, and those that something knows get 200 strings each. Prints the first strings that
differ, and exits with 1 where there are any.
"""

import argparse
import json
import random
import sys
from itertools import islice
from pathlib import Path
from random import SystemRandom
from typing import Any

from tokenizers import Tokenizer, normalizers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mlx_embed.tokenizer import framed, nano, pieces  # noqa: E402
from mlx_embed.tokenizer.panics import is_the_librarys  # noqa: E402
from tests.conftest import minilm_folder  # noqa: E402
from tests.mlx_embed.tokenizer import trained  # noqa: E402
from tests.mlx_embed.tokenizer.composed import composed  # noqa: E402
from tests.mlx_embed.tokenizer.strings import strings  # noqa: E402

STRINGS_EACH = 200
WINDOW = 5000
FLAGS = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
VARIANTS = (
    (True, True, False, False),
    (True, False, None, True),
    (False, True, True, False),
    (True, True, False, True),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--composed", type=int, default=2000, help="tokenizers that are put together at random")
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
        makers = makers_of(library)
        if not makers:
            print(f"{name}: nothing that is fast takes it, or is here.")
            bad += 1
        given = strings(library, options.seed)
        left = options.strings // len(libraries)
        while left > 0:
            texts = list(islice(given, min(WINDOW, left)))
            left -= len(texts)
            bad += differing(name, library, makers, texts, 10 - bad)
    print(f"{options.strings} strings, {len(libraries)} tokenizers, {bad} differ", flush=True)
    known = 0
    for number in range(options.composed):
        library = composed(random.Random(options.seed + number))
        if makers := makers_of(library):
            known += 1
            texts = list(islice(strings(library, number), STRINGS_EACH))
            bad += differing(f"composed({options.seed + number})", library, makers, texts, 10 - bad)
    print(f"{options.composed} tokenizers put together at random, of which {known} are known; {bad} differ in all")
    return 1 if bad else 0


def makers_of(library: Tokenizer) -> dict[str, Any]:
    """What makes ids fast for a tokenizer, by its name."""
    found = {}
    for kind in (nano, pieces):
        if kind.known(library):
            try:
                found[kind.__name__] = kind.maker(library, framed(library))
            except ValueError as error:  # nanotoken's, of what it does not have
                print(f"{kind.__name__}: {error}", flush=True)
    return {name: maker for name, maker in found.items() if maker is not None}


def differing(name: str, library: Tokenizer, makers: dict[str, Any], texts: list[str], shown: int) -> int:
    """How many texts something makes other ids of than the library does, of which the first are printed."""
    if not makers:
        return 0
    try:
        expected = [x.ids for x in library.encode_batch_fast(texts, add_special_tokens=True)]
    except BaseException as error:
        if not is_the_librarys(error):
            raise
        print(f"{name}: tokenizers fails: {error}", flush=True)
        return 0
    bad = 0
    for maker, make in makers.items():
        found = make(texts, whole=True)
        wrong = [text for text, a, b in zip(texts, found, expected, strict=True) if a.tolist() != b]
        for text in wrong[: max(shown - bad, 0)]:
            print(f"{name}, {maker}: {json.dumps(text)}", flush=True)
        bad += len(wrong)
    return bad


if __name__ == "__main__":
    sys.exit(main())
