"""SentencePiece's own file of a Unigram model, read without its library, as what tokenizer.json would be.

The file is a message of Protocol Buffers, https://github.com/google/sentencepiece (sentencepiece_model.proto): fields,
each a number and a wire type, then a number, 4 or 8 bytes, or a length and so many bytes.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from mlx_embed.errors import CheckpointError
from mlx_embed.tokenizer import special
from mlx_embed.tokenizer.classes import Settings, optional_flag, typed_ends

Field: TypeAlias = tuple[int, "int | bytes"]

# The file that each class reads where there is no tokenizer.json.
FILES = {"Albert": "spiece.model", "DebertaV2": "spm.model", "T5": "spiece.model"}
# Kinds of pieces, and of models.
_CONTROL, _GIVEN = 3, 4
_UNIGRAM = 1


@dataclass(frozen=True)
class Model:
    """What the file has.

    Attributes:
        pieces: text, score and kind of each, by id.
        unknown: the id of what is in no piece.
        charsmap: the table by which characters are read; empty for none.
    """

    pieces: list[tuple[str, float, int]]
    unknown: int
    charsmap: bytes


def read(path: Path) -> Model:
    """Read the file.

    Raises:
        CheckpointError: it is no such file, or of another kind of model.
    """
    pieces: list[tuple[str, float, int]] = []
    unknown, kind, charsmap = 0, _UNIGRAM, b""
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                parts = dict(_fields(_message(value)))
                score = struct.unpack("<f", _message(parts.get(2, b"\0\0\0\0")))[0]
                pieces.append((_message(parts[1]).decode(), score, int(parts.get(3, 1))))
            elif number == 2:
                trainer = dict(_fields(_message(value)))
                kind, unknown = int(trainer.get(3, _UNIGRAM)), int(trainer.get(40, 0))
            elif number == 3:
                charsmap = _message(dict(_fields(_message(value))).get(2, b""))
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise CheckpointError(f"{path} is no model of SentencePiece: {error!r}") from error
    if kind != _UNIGRAM or not 0 <= unknown < len(pieces):
        raise CheckpointError(f"{path} is no Unigram model of SentencePiece with a piece for what it does not know.")
    return Model(pieces, unknown, charsmap)


def tokenizer(path: Path, short: str, settings: Settings) -> Tokenizer:
    """What transformers 4 makes of the file for a class, but for what the class makes anew: see `classes`.

    Raises:
        CheckpointError: see `read`.
    """
    model = read(path)
    vocabulary = [(piece, score) for piece, score, _ in model.pieces]
    if short == "Albert":  # a digit and a comma are hardly ever one piece; transformers 5 has lost this
        vocabulary = [(piece, score - 100 if _is_a_number_with_comma(piece) else score) for piece, score in vocabulary]
    if short == "T5":
        vocabulary += [(f"<extra_id_{number}>", 0.0) for number in range(99, -1, -1)]
    made = Tokenizer(models.Unigram(vocabulary, model.unknown, False))
    own = [(piece, kind) for piece, _, kind in model.pieces if kind in (_CONTROL, _GIVEN)]
    made.add_tokens([AddedToken(piece, normalized=False, special=kind == _CONTROL) for piece, kind in own])
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if short == "DebertaV2" and steps:
        steps = [normalizers.Strip(), *steps, normalizers.Replace(Regex(" {2,}"), " ")]
        if optional_flag(settings, "do_lower_case"):
            steps.insert(0, normalizers.Lowercase())
        apart = optional_flag(settings, "split_by_punct")
        parts: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Punctuation("isolated")] if apart else []
        made.pre_tokenizer = pre_tokenizers.Sequence([*parts, pre_tokenizers.Metaspace("▁")])
    if short == "Albert":
        made.post_processor = typed_ends(*(special.end(token, made) for token in ("[CLS]", "[SEP]")))
    if steps:
        made.normalizer = normalizers.Sequence(steps)
    return made


def _is_a_number_with_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def _message(value: "int | bytes") -> bytes:
    if isinstance(value, int):
        raise TypeError("a number where bytes are due")
    return value


def _fields(data: bytes) -> Iterator[Field]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"a field of type {kind}")
        size, place = _varint(data, place) if kind == 2 else (8 if kind == 1 else 4, place)
        if place + size > len(data):
            raise ValueError("it ends within a field")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
