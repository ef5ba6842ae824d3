"""Texts that bring out what two tokenizers of one checkpoint do differently, some 0.6 MB of them."""

from collections.abc import Iterator

from tokenizers import Tokenizer

ROW = 128
# Ideographs, Hangul syllables and private use: so alike that every 16th tells as much.
ALIKE = ((0x3400, 0xA000), (0xAC00, 0xD7A4), (0xE000, 0xF900), (0x17000, 0x18D00), (0x20000, 0x33480))
PLANES = ((0x0000, 0xD800), (0xE000, 0x34000), (0xE0000, 0xE0200), (0x10FF00, 0x110000))
VOCABULARY = 1500
SEQUENCES = (
    *("", " ", "\n", "e\u0301", "\u0301e", "a\u0323\u0307b", "a\u0307\u0323b", "\u1112\u1161\u11ab", "\u0130I\u0131i"),
    *("ΟΔΥΣΣΕΥΣ ΑΣ", "ẞß", "ﬁ ﬃ", "Ǆǅǆ", "٣٤٥ ௧ ⅷ ½ ²", "\U0001f469\u200d\U0001f467\ufe0f \U0001f1e9\U0001f1ea"),
    *("カ\u3099ﾊﾟ", "a\u00adb", "a\u200bb\u2060c\ufeffd", "a\x00b\x0bc\x0cd\x1ce\x85f\u2028g\u3000h\u00a0i\ufffdj"),
    *("don't", "U.S.A.", "3.14,15", "1e-9", "x=y+z;", "#hash @at $5 50% a_b a-b", "://" * 70, "http://a.b/c?d=e&f#g"),
    *("日本語とabc中文123", "ไทยกำ", "नमस्ते क्षि", "\u0915\u093c \u0958", "Å \u212b \u212a", "ſ K", "…—–'“”«»¿¡"),
)


def texts(library: Tokenizer) -> list[str]:
    """Texts for the tokenizer of a checkpoint, whose own tokens are in some of them."""
    return [*SEQUENCES, *_special(library), *_characters(), *_vocabulary(library), *_long(), *_numbers()]


def _special(library: Tokenizer) -> Iterator[str]:
    for token in library.get_added_tokens_decoder().values():
        name = token.content
        yield f"{name} {name}{name}a{name}b c{name} {name}d, {name}. '{name}' \t{name}\n  {name}  e"
        yield f"{name.lower()} {name.upper()} {name[1:]} {name[:-1]} {name[:-1]} {name[1:]} {name}\u0301 é{name}é"
        yield name


def _characters() -> Iterator[str]:
    """Characters of every block of Unicode: each alone, and each within a word."""
    for first, last in PLANES:
        for row in range(first, last, ROW):
            alike = any(start <= row < stop for start, stop in ALIKE)
            step = 16 if alike else 1 if row < 0x10000 else 4
            characters = list(map(chr, range(row, min(row + ROW, last), step)))
            yield " ".join(characters)
            yield "a".join(characters)


def _vocabulary(library: Tokenizer) -> Iterator[str]:
    """Tokens in odd places: behind one another without a space, in capitals, in halves."""
    tokens = sorted(library.get_vocab(with_added_tokens=False))
    chosen = tokens[:: max(len(tokens) // VOCABULARY, 1)]
    for place in range(0, len(chosen), 20):
        some = chosen[place : place + 20]
        yield " ".join(some)
        yield "".join(some).replace("##", "")
        yield " ".join(some).replace("##", "").title()
        yield "é".join(some).upper()


def _long() -> Iterator[str]:
    """Words at the length beyond which they are unknown."""
    for character in ("a", "Ä", "の", "\u0301", "1", "."):
        for length in (98, 99, 100, 101, 102, 300):
            yield f"b {character * length} b{character * length}"
    yield "ab" * 20000


def _numbers() -> Iterator[str]:
    yield " ".join(str(7919**power) for power in range(1, 12))
    yield ",".join(str(number * 997) for number in range(200))
