"""A tokenizer's own rules: what native code is told of them, where it knows their kind."""

import unicodedata
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from custom_kernels.cpu.subwords import CHARACTERS, SUSPECT, Cut, Kind, Model, Rules
from mlx_embed.tokenizer.beginnings import PATTERNS
from mlx_embed.tokenizer.classes import normalizer_steps, state

# Characters that stay what they are, whatever stands beside them: nothing of these is a mark, or joined with others.
STRETCHES = (
    *((0x21, 0x7F), (0xC0, 0x180), (0x386, 0x400), (0x400, 0x482), (0x48A, 0x530), (0x1E00, 0x1F00)),
    *((0x2010, 0x2017), (0x2018, 0x2028), (0x2030, 0x203A), (0x2190, 0x2200), (0x2500, 0x2580), (0x25A0, 0x2600)),
    *((0x3001, 0x3004), (0x3005, 0x302A), (0x3041, 0x3097), (0x309D, 0x30FF), (0x3105, 0x3130), (0x4E00, 0x9FA6)),
    *((0xAC00, 0xD7A4), (0xFF01, 0xFF5C), (0xFF5D, 0xFF5F)),
)
SPACES = " \t\n\r"
# It stands between characters whose normal forms are asked for together.
BETWEEN = "|"


def rules(library: Tokenizer, model: dict[str, Any]) -> Rules | None:
    """The rules of a tokenizer that is `pieces.known`, whose model is that; None where they are of another kind."""
    found = _cut(library)
    if found is None:
        return None
    cut, options = found
    made = {Model.UNIGRAM: _unigram, Model.BPE: _bpe, Model.WORDPIECE: _wordpiece}[_MODELS[cut]](model)
    kinds = _kinds(library, cut)
    if made is None or kinds is None:
        return None
    return Rules(cut=cut, model=_MODELS[cut], kinds=kinds[0], normal=kinds[1], added=kinds[2], **made, **options)


_MODELS = {
    Cut.AT_SPACES: Model.UNIGRAM,
    Cut.BEFORE_SPACES: Model.UNIGRAM,
    Cut.BERT: Model.WORDPIECE,
    Cut.GPT2: Model.BPE,
    Cut.QWEN: Model.BPE,
}


def _cut(library: Tokenizer) -> tuple[Cut, dict[str, Any]] | None:
    """How a tokenizer cuts a text into words, and what of `Rules` goes with that."""
    steps = _steps(library)
    kinds = [step.get("type") for step in steps]
    if kinds == ["BertPreTokenizer"]:
        return Cut.BERT, {}
    if kinds == ["ByteLevel"]:
        return Cut.GPT2, {"prefixed": bool(steps[0]["add_prefix_space"])}
    if kinds == ["Split", "ByteLevel"]:
        if steps[1]["use_regex"] or steps[1]["add_prefix_space"]:
            return None
        return Cut.QWEN, {"digits": PATTERNS[steps[0]["pattern"]["Regex"]]}
    if kinds in (["WhitespaceSplit", "Metaspace"], ["Metaspace"]):
        space, scheme, split = (steps[-1][key] for key in ("replacement", "prepend_scheme", "split"))
        prefix = "" if scheme == "never" else space
        if len(kinds) == 2:
            return (Cut.AT_SPACES, {"prefix": prefix}) if split else None
        return Cut.BEFORE_SPACES, {"prefix": space, "first_prefix": prefix}
    return None


def _steps(library: Tokenizer) -> list[dict[str, Any]]:
    found: dict[str, Any] = state(library.pre_tokenizer)
    return list(found.get("pretokenizers", [found]))


def _unigram(model: dict[str, Any]) -> dict[str, Any] | None:
    if model["type"] != "Unigram" or model["byte_fallback"] or model["unk_id"] is None:
        return None
    tokens = [content.encode() for content, _ in model["vocab"]]
    scores = np.array([score for _, score in model["vocab"]], dtype=np.float64)
    if len(set(tokens)) < len(tokens) or b"" in tokens or not np.isfinite(scores).all():
        return None
    return {"tokens": list(zip(tokens, range(len(tokens)), strict=True)), "scores": scores, "unknown": model["unk_id"]}


def _bpe(model: dict[str, Any]) -> dict[str, Any] | None:
    if model["type"] != "BPE" or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        return None
    vocabulary: dict[str, int] = model["vocab"]
    by_byte = _byte_characters()
    if any(character not in vocabulary for character in by_byte):
        return None
    of_character = {ord(character): byte for byte, character in enumerate(by_byte)}
    tokens = [
        (bytes(map(of_character.__getitem__, map(ord, content))), number)
        for content, number in vocabulary.items()
        if content and all(ord(x) in of_character for x in content)
    ]
    merges = {
        (vocabulary[left], vocabulary[right]): vocabulary[left + right] for left, right in reversed(model["merges"])
    }
    return {
        "tokens": tokens,
        "merges": np.array([(*pair, made) for pair, made in reversed(merges.items())], dtype=np.int32).reshape(-1, 3),
        "of_bytes": np.array([vocabulary[character] for character in by_byte], dtype=np.int32),
        "whole_words": bool(model["ignore_merges"]),
    }


def _wordpiece(model: dict[str, Any]) -> dict[str, Any] | None:
    if model["type"] != "WordPiece" or model["unk_token"] not in model["vocab"]:
        return None
    return {
        "tokens": [(content.encode(), number) for content, number in model["vocab"].items() if content],
        "unknown": model["vocab"][model["unk_token"]],
        "inner": model["continuing_subword_prefix"],
        "longest": model["max_input_chars_per_word"],
    }


def _byte_characters() -> list[str]:
    """The characters that stand for bytes in byte-level vocabularies, as GPT-2's authors have chosen them."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printed else next(others)) for byte in range(256)]


def _kinds(library: Tokenizer, cut: Cut) -> tuple[Any, dict[int, bytes], list[bytes]] | None:
    """The kind of each character, what the normalizer makes of it, and the added tokens that it may begin."""
    steps = normalizer_steps(library.normalizer) if library.normalizer is not None else []
    replaced = [step["pattern"] for step in steps if step.get("type") == "Replace"]
    spaces = [step.get("replacement", "") for step in _steps(library)]  # at which Metaspace cuts, whoever wrote them
    held = set("".join([*(pattern.get("String", "") for pattern in replaced), *spaces, "\u2581"]))
    whole = any("Regex" in pattern for pattern in replaced) or any(step.get("type") == "Strip" for step in steps)
    if BETWEEN in held or (whole and cut in (Cut.GPT2, Cut.QWEN, Cut.BERT)):
        return None
    characters = [chr(code) for first, last in STRETCHES for code in range(first, last) if chr(code) not in held]
    normal = dict(zip(characters, characters, strict=True))
    normalize = (lambda text: text) if library.normalizer is None else library.normalizer.normalize_str
    if normalize(BETWEEN) != BETWEEN:
        return None
    for start in range(0, len(characters), 1000):
        some = [character for character in characters[start : start + 1000] if character != BETWEEN]
        made = normalize(BETWEEN.join(some)).split(BETWEEN)
        if len(made) != len(some):
            return None
        normal.update(zip(some, made, strict=True))
    kinds, changed = np.zeros(CHARACTERS, dtype=np.uint8), {}
    for character, content in normal.items():
        alone = cut is Cut.BERT and content == f" {character} "  # an ideograph
        content = content.strip(" ") if alone else content
        kind = Kind.ALONE if alone else _kind(content, cut)
        if kind is None or not held.isdisjoint(content):
            continue
        kinds[ord(character)] = kind
        if content != character:
            changed[ord(character)] = content.encode()
    for character in SPACES:
        made = normalize(f"a{character}a")[1:-1]
        if made == character or (made.isspace() and cut in (Cut.AT_SPACES, Cut.BERT)):
            kinds[ord(character)] = Kind.SPACE if character == " " or cut is not Cut.BEFORE_SPACES else Kind.NOT_SIMPLE
    added = []
    for token in library.get_added_tokens_decoder().values():
        added += [token.content, normalize(token.content)] if token.normalized else [token.content]
    if "" in added or (cut in (Cut.AT_SPACES, Cut.BERT) and any(map(str.isspace, "".join(added)))):
        return None  # to these any white space is as good as another
    first = {content[0] for content in added}
    for character in {*normal, *SPACES}:
        if character in first or not first.isdisjoint(normal.get(character, character)):
            kinds[ord(character)] |= SUSPECT if kinds[ord(character)] else 0
    return kinds, changed, [content.encode() for content in added]


def _kind(content: str, cut: Cut) -> Kind | None:
    """The kind of a character of which the normalizer leaves this; None where it is of no kind, or of several."""
    found = {_kind_of(character, cut) for character in content}
    if len(found) != 1 or (Kind.ALONE in found and len(content) > 1):
        return None
    return found.pop()


def _kind_of(character: str, cut: Cut) -> Kind | None:
    category = unicodedata.category(character)
    if category[0] in "CZ":
        return None
    if cut is Cut.BERT:
        ascii_sign = character.isascii() and not character.isalnum()
        return Kind.ALONE if ascii_sign or category[0] == "P" else Kind.LETTER
    if cut in (Cut.GPT2, Cut.QWEN):
        return {"L": Kind.LETTER, "N": Kind.NUMBER}.get(category[0], Kind.OTHER)
    return Kind.LETTER
