"""Random strings that are hard for a tokenizer: its own tokens in odd places, every script, control characters."""

import random
from collections.abc import Iterator

from tokenizers import Tokenizer

# First and last code point of stretches of Unicode, common ones more often than their size would have them.
STRETCHES = (
    *((0x00, 0x80), (0x80, 0x250), (0x250, 0x600), (0x600, 0x1100), (0x1100, 0x2000), (0x2000, 0x3000)),
    *((0x3000, 0x3400), (0x3400, 0xA000), (0xA000, 0xD800), (0xE000, 0xFE00), (0xFE00, 0x10000), (0x10000, 0x12000)),
    *((0x1D000, 0x20000), (0x20000, 0x30000), (0xE0000, 0xE0200), (0x00, 0x110000)),
)
ODD = ("##", "[", "]", "\0", "\t", "\x0b", "\x0c", "\x85", "\u00a0", "\u3000", "\ufffd", "\u200d", "\ufeff", "\u0301")


def strings(library: Tokenizer, seed: int) -> Iterator[str]:
    """Strings for a tokenizer, without end."""
    rng = random.Random(seed)
    vocabulary = sorted(library.get_vocab(with_added_tokens=False))
    odd = [*ODD, *(token.content for token in library.get_added_tokens_decoder().values())]
    while True:
        parts = []
        for _ in range(rng.randrange(1, 20)):
            parts.append(_part(rng, vocabulary, odd))
            parts.append(rng.choice((" ", " ", " ", "", "", "  ", "\n")))
        yield "".join(parts)


def _part(rng: random.Random, vocabulary: list[str], odd: list[str]) -> str:
    kind = rng.random()
    if kind < 0.35:
        token = rng.choice(vocabulary)
        return rng.choice((token, token, token.upper(), token.title(), token.removeprefix("##")))
    if kind < 0.45:
        return rng.choice(odd)
    if kind < 0.48:
        return rng.choice("aé中1.\u0301") * rng.choice((2, 99, 100, 101, 250))
    if kind < 0.58:
        return str(rng.randrange(10 ** rng.randrange(1, 12)))
    return "".join(_character(rng) for _ in range(rng.randrange(1, 6)))


def _character(rng: random.Random) -> str:
    first, last = rng.choice(STRETCHES)
    code = rng.randrange(first, last)
    return chr(code if not 0xD800 <= code < 0xE000 else 0xFFFD)
