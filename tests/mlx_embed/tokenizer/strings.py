"""Random strings that are hard for a tokenizer: its own tokens in odd places, every script, control characters."""

import random
from collections.abc import Iterator
from functools import cache
from itertools import islice

from tokenizers import Tokenizer

# First and last code point of stretches of Unicode, common ones more often than their size would have them.
STRETCHES = (
    *((0x00, 0x80), (0x80, 0x250), (0x250, 0x600), (0x600, 0x1100), (0x1100, 0x2000), (0x2000, 0x3000)),
    *((0x3000, 0x3400), (0x3400, 0xA000), (0xA000, 0xD800), (0xE000, 0xFE00), (0xFE00, 0x10000), (0x10000, 0x12000)),
    *((0x1D000, 0x20000), (0x20000, 0x30000), (0xE0000, 0xE0200), (0x00, 0x110000)),
)
ODD = ("##", "[", "]", "\0", "\t", "\x0b", "\x0c", "\x85", "\u00a0", "\u3000", "\ufffd", "\u200d", "\ufeff", "\u0301")


# Stretches of which a text is often made without spaces, and what source code is made of.
RUNS = (
    *((0x4E00, 0x9FA6), (0x3041, 0x30FF), (0xAC00, 0xD7A4), (0xFF01, 0xFF5F)),
    *((0x21, 0x7F), (0xC0, 0x250), (0x386, 0x530)),
)
CODE = (
    *("self", ".", "(", ")", "'s", "'", '"', "_", "=", "12", "1234", "=="),
    *("'ll", "'T", "\n        ", "\n\n", "\t", "\r\n", "["),
)


def strings(library: Tokenizer, seed: int) -> Iterator[str]:
    """Strings for a tokenizer, without end."""
    return _strings(*_tokens(library), seed)


def some_strings(library: Tokenizer, seed: int, count: int) -> list[str]:
    """The first of them, made once for tokenizers of the same tokens."""
    return list(_first(*_tokens(library), seed, count))


def _tokens(library: Tokenizer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Its vocabulary, and what is odd."""
    added = (token.content for token in library.get_added_tokens_decoder().values())
    return tuple(sorted(library.get_vocab(with_added_tokens=False))), (*ODD, *added)


@cache
def _first(vocabulary: tuple[str, ...], odd: tuple[str, ...], seed: int, count: int) -> tuple[str, ...]:
    return tuple(islice(_strings(vocabulary, odd, seed), count))


def _strings(vocabulary: tuple[str, ...], odd: tuple[str, ...], seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    while True:
        parts = []
        for _ in range(rng.randrange(1, 20)):
            parts.append(_part(rng, vocabulary, odd))
            parts.append(rng.choice((" ", " ", " ", "", "", "  ", "\n")))
        yield "".join(parts)


def _part(rng: random.Random, vocabulary: tuple[str, ...], odd: tuple[str, ...]) -> str:
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
    if kind < 0.68:
        first, last = rng.choice(RUNS)
        return "".join(chr(rng.randrange(first, last)) for _ in range(rng.choice((3, 9, 40, 120))))
    if kind < 0.78:
        return "".join(rng.choice((*CODE, rng.choice(vocabulary))) for _ in range(rng.randrange(2, 12)))
    return "".join(_character(rng) for _ in range(rng.randrange(1, 6)))


def _character(rng: random.Random) -> str:
    first, last = rng.choice(STRETCHES)
    code = rng.randrange(first, last)
    return chr(code if not 0xD800 <= code < 0xE000 else 0xFFFD)
