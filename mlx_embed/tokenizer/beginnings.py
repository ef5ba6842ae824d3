"""The beginnings of texts that are far longer than what a model takes of them."""

from tokenizers import Tokenizer

from mlx_embed.tokenizer.classes import normalizer_steps, state

# Characters of a text that are read for each token that is wanted of it, and those that are read at least.
CHARACTERS = 16
LEAST = 4096
# Places between two words that are looked at before a text is read as a whole.
TRIES = 100

_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "StripAccents"}
_PRE_TOKENIZERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}


def breaks_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether the tokens before a single space between two words are the same without what follows.

    It is said of normalizers that change characters one by one, or with the marks that follow them, and of
    pre-tokenizers that split at every space, or before it; all others may look further.
    """
    normalizer, first = state(tokenizer.normalizer), state(tokenizer.pre_tokenizer)
    if first.get("type") == "Sequence":
        first = first["pretokenizers"][0] if first["pretokenizers"] else {}
    splits = first.get("type") in _PRE_TOKENIZERS or (first.get("type") == "ByteLevel" and first["use_regex"])
    local = not normalizer or {part.get("type") for part in normalizer_steps(tokenizer.normalizer)} <= _NORMALIZERS
    added = tokenizer.get_added_tokens_decoder().values()
    return splits and local and not any(" " in token.content for token in added)


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
