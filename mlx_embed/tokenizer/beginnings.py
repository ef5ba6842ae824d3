"""The beginnings of texts that are far longer than what a model takes of them."""

from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from mlx_embed.tokenizer.classes import normalizer_steps, state

# Characters of a text that are read for each token that is wanted of it, and those that are read at least.
CHARACTERS = 16
LEAST = 4096
# Places between two words that are looked at before a text is read as a whole.
TRIES = 100

_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "StripAccents"}
# Those that may leave nothing of a character.
_REMOVE = {"BertNormalizer", "StripAccents"}
# Those that may put white space behind a word, where there was none.
_PUT_SPACES = {"BertNormalizer", "NFKC", "NFKD", "Precompiled"}
_AT_SPACES = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
# Patterns of the tokenizers of Qwen, Llama 3 and their kind, and how many digits they take together: what they match
# has a space at its beginning only.
PATTERNS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+": digits
    for numbers, digits in ((r"\p{N}", 1), (r"\p{N}{1,3}", 3))
}


def breaks_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether the tokens before a single space between two words are the same without what follows.

    It is said of normalizers that change characters one by one, or with the marks that follow them, and of
    pre-tokenizers that split at every space, or before it; all others may look further. So does a step behind those
    that asks where in the text a word stands.
    """
    first, *others = _pre_tokenizers(tokenizer)
    return (
        _splits(first)
        and not any(step.get("prepend_scheme") == "first" for step in others)
        and all(_local(step, first.get("replacement")) for step in _steps(tokenizer))
        and not any(map(_has_space_within, _added(tokenizer)))
        and not (_puts_spaces(tokenizer) and any(map(_has_space, _normalized(tokenizer))))
    )


def closes_gaps(tokenizer: Tokenizer) -> bool:
    """Whether the spaces around a character that is dropped, such as an accent alone, may make a token together."""
    first, normalizer = _pre_tokenizers(tokenizer)[0], _steps(tokenizer)
    counted = first.get("type") not in _AT_SPACES
    if first.get("type") == "Metaspace":  # makes a token of each space that no step has put together
        counted = any(step.get("type") == "Replace" and "Regex" in step["pattern"] for step in normalizer)
    counted = counted or any(step.get("type") == "Strip" for step in normalizer)
    return counted and any(step.get("type") in _REMOVE for step in normalizer)


def breaks_at_lines(tokenizer: Tokenizer) -> int:
    """Behind what the end of a line ends a word, where a space does: 0 nothing, 1 letters and numbers, 2 anything."""
    first = _pre_tokenizers(tokenizer)[0]
    if first.get("add_prefix_space"):
        return 0  # a word behind it would be given a space
    if first.get("type") == "Split":
        return 0 if any(step.get("type") == "Replace" for step in _steps(tokenizer)) else 1
    return 0 if first.get("type") == "Metaspace" else 2


def _steps(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    return normalizer_steps(tokenizer.normalizer) if tokenizer.normalizer is not None else []


def _puts_spaces(tokenizer: Tokenizer) -> bool:
    return any(step.get("type") in _PUT_SPACES for step in _steps(tokenizer))


def _added(tokenizer: Tokenizer) -> Iterator[str]:
    """What is looked for in a text before it is cut: added tokens as they are, or as the normalizer leaves them."""
    for token in tokenizer.get_added_tokens_decoder().values():
        yield token.content
    yield from _normalized(tokenizer)


def _normalized(tokenizer: Tokenizer) -> Iterator[str]:
    """The added tokens that are looked for in what the normalizer leaves of a text."""
    for token in tokenizer.get_added_tokens_decoder().values():
        if token.normalized and tokenizer.normalizer is not None:
            yield tokenizer.normalizer.normalize_str(token.content)


def _has_space(text: str) -> bool:
    return any(map(str.isspace, text))


def _has_space_within(text: str) -> bool:
    """Whether white space follows something else, so that a word may end within it."""
    return _has_space(text.lstrip())


def _pre_tokenizers(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The pre-tokenizer's steps; an empty one where there is none."""
    found = state(tokenizer.pre_tokenizer)
    return found.get("pretokenizers", [found]) or [{}]


def _splits(step: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer's step ends a word before every space behind one."""
    kind = step.get("type")
    if kind == "Split":
        regular = step["pattern"].get("Regex") in PATTERNS
        return regular and step["behavior"] == "Isolated" and not step["invert"]
    return (
        kind in _AT_SPACES
        or (kind == "ByteLevel" and bool(step["use_regex"]))
        or (kind == "Metaspace" and bool(step["split"]))
    )


def _local(step: dict[str, Any], space: str | None) -> bool:
    """Whether a normalizer's step looks no further than a word with the spaces before it; `space` is as good as one."""
    if step.get("type") == "Replace":
        text = step["pattern"].get("String")
        spaces = step["pattern"].get("Regex") == " {2,}" and step["content"] in (" ", space)
        return spaces or (text is not None and not any(map(str.isspace, text + step["content"])))
    if step.get("type") == "Strip":
        return not step["strip_left"]
    return step.get("type") in _NORMALIZERS


def of(texts: list[str], max_length: int) -> list[str]:
    """The texts, of which those that are far too long end between two words, behind what is wanted of them."""
    most = max(CHARACTERS * max_length, LEAST)
    return [text if len(text) <= 2 * most else text[: _between_words(text, most)] for text in texts]


def _between_words(text: str, place: int) -> int:
    """The first single space between two words from `place` on, or the end of the text."""
    for _ in range(TRIES):
        place = text.find(" ", place + 1)
        if place < 0:
            break
        if text[place - 1].isalnum() and text[place + 1 : place + 2].isalnum():
            return place
    return len(text)
