"""Folders of models that give a vector a token (ColBERT): sentence-transformers', PyLate's and Stanford's.

All three come down to sentence-transformers' terms, as its MultiVectorEncoder reads them: modules that work on tokens,
a prompt that begins with a marker, lengths, query expansion, and which tokens' vectors count.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_embed.checkpoint.files import optional_json
from mlx_embed.checkpoint.listed import inside, listed
from mlx_embed.checkpoint.settings import flag, length
from mlx_embed.errors import CheckpointError, UnsupportedModelError

SIMILARITIES = ("maxsim", "meanmaxsim")
STANFORD = "HF_ColBERT"
# In the tokens of a query, where a checkpoint names no number.
EXPANDED = 32
# What only PyLate writes into config_sentence_transformers.json.
_PYLATE = {
    *("query_prefix", "document_prefix", "query_length", "document_length", "do_query_expansion", "skiplist_words"),
    *("attend_to_expansion_tokens", "attend_to_mask_tokens"),
}
_OF_ROWS = ("MultiVectorMask", "HierarchicalTokenPooling")


@dataclass(frozen=True)
class Expansion:
    """The tokens that are added to a query.

    Attributes:
        length: a query has so many tokens then.
        fixed: whether longer queries are cut to that; else they stay as they are.
        attended: whether the query's tokens attend to those that are added.
        token: which it is; None is the mask token, or the token at the end of texts.
    """

    length: int = EXPANDED
    fixed: bool = True
    attended: bool = False
    token: str | None = None


@dataclass(frozen=True)
class Clustering:
    """Vectors of a text that are near each other, averaged.

    Attributes:
        factor: a text keeps one of so many vectors.
        protected: its first vectors, which stay as they are.
        unit: whether vectors are scaled to length 1 afterwards.
        tasks: of which texts: "query", "document".
    """

    factor: float = 1.0
    protected: int = 1
    unit: bool = False
    tasks: tuple[str, ...] = ("document",)


@dataclass(frozen=True)
class MultiVector:
    """What a folder says of a model that gives a vector a token.

    Attributes:
        transformer: the encoder's folder, within the checkpoint.
        projected: whether the projection is a tensor beside the encoder's, and not a module.
        modules: those that follow the encoder, as (kind, folder).
        sentence: config_sentence_transformers.json, with the prompts as they count.
        markers: tokens at the beginning of prompts, which the tokenizer is not to take apart.
        lengths: tokens at which a "query" or a "document" is cut.
        expansion: what is added to queries.
        skipped: tokens whose vectors are left out.
        skipped_of: of which texts, "query" or "document".
        kept: the ids of tokens to which documents are restricted; empty for no restriction.
        clustering: in the order in which they come.
        similarity: one of SIMILARITIES.
    """

    transformer: str = ""
    projected: bool = False
    modules: tuple[tuple[str, str], ...] = ()
    sentence: Mapping[str, Any] = field(default_factory=dict)
    markers: tuple[str, ...] = ()
    lengths: Mapping[str, int] = field(default_factory=dict)
    expansion: Expansion | None = None
    skipped: tuple[str, ...] = ()
    skipped_of: tuple[str, ...] = ("document",)
    kept: tuple[int, ...] = ()
    clustering: tuple[Clustering, ...] = ()
    similarity: str = "maxsim"


def read_multi_vector(folder: Path) -> MultiVector:
    """Read what a folder says, but for the encoder and the weights.

    Raises:
        CheckpointError: a file that is missing or malformed.
        UnsupportedModelError: a model of another kind, or modules that are not implemented.
    """
    path = folder / "config_sentence_transformers.json"
    sentence = optional_json(path)
    kind = sentence.get("model_type")
    if kind in ("MultiVectorEncoder", "ColBERT") or (kind in (None, "SentenceTransformer") and _PYLATE & set(sentence)):
        return _of_modules(folder, path, sentence)
    if is_stanfords(folder):
        return _stanford(folder)
    raise UnsupportedModelError(
        f"{folder} is no model of a vector a token: {path.name} names neither a MultiVectorEncoder nor PyLate's "
        f"settings, and config.json no {STANFORD}."
    )


def is_stanfords(folder: Path) -> bool:
    """Whether config.json says that a folder is in the layout of Stanford's ColBERT."""
    named = optional_json(folder / "config.json").get("architectures")
    return isinstance(named, list) and STANFORD in named


def _of_modules(folder: Path, path: Path, sentence: Mapping[str, Any]) -> MultiVector:
    """sentence-transformers' layout, with PyLate's settings in its own file, or without."""
    entries = listed(folder)
    order = [kind for kind, _ in entries]
    if order[:1] != ["Transformer"] or "Pooling" in order:
        raise UnsupportedModelError(
            f"{folder / 'modules.json'} lists {' -> '.join(order) or 'nothing'}; of a model of a vector a token "
            "mlx_embed runs a Transformer, and behind it modules that work on tokens."
        )
    pylate = bool(_PYLATE & set(sentence)) or sentence.get("model_type") == "ColBERT"
    prompts, markers = _prompts(path, sentence)
    masks = [inside(folder, place) / "config.json" for kind, place in entries if kind == "MultiVectorMask"]
    mask = optional_json(masks[-1]) if masks else {}
    skipped = _words(masks[-1], mask, "skiplist_words", ()) if masks else ()
    modules = [(kind, place) for kind, place in entries[1:] if kind not in _OF_ROWS]
    if pylate and not masks:
        skipped = _words(path, sentence, "skiplist_words", string.punctuation)
        modules += [("Normalize", "")] * (order[-1] != "Normalize")
    similarity = sentence.get("similarity_fn_name")
    return MultiVector(
        transformer=entries[0][1],
        modules=tuple(modules),
        sentence={**sentence, "prompts": prompts, "similarity_fn_name": None},
        markers=markers,
        lengths=_lengths(path, sentence),
        expansion=_pylate_expansion(path, sentence) if pylate else None,
        skipped=skipped,
        skipped_of=_words(masks[-1], mask, "skiplist_tasks", ("document",)) if masks else ("document",),
        kept=_numbers(masks[-1], mask) if masks else (),
        clustering=tuple(
            _clustering(inside(folder, place) / "config.json")
            for kind, place in entries
            if kind == "HierarchicalTokenPooling"
        ),
        similarity=similarity if similarity in SIMILARITIES else "maxsim",
    )


def _stanford(folder: Path) -> MultiVector:
    """A BERT with its projection beside it; artifact.metadata says the rest, if it is there."""
    path = folder / "artifact.metadata"
    found = optional_json(path)
    prompts = {
        "query": f"{found.get('query_token_id') or '[unused0]'} ",
        "document": f"{found.get('doc_token_id') or '[unused1]'} ",
    }
    longest = length(path, found, "doc_maxlen")
    return MultiVector(
        projected=True,
        modules=(("Normalize", ""),),
        sentence={"prompts": prompts},
        markers=tuple(prompts.values()),
        lengths={} if longest is None else {"document": longest},
        expansion=Expansion(
            length(path, found, "query_maxlen") or EXPANDED,
            attended=flag(path, found, "attend_to_mask_tokens", False),
        ),
        skipped=tuple(string.punctuation) if flag(path, found, "mask_punctuation", True) else (),
    )


def read_expansion(path: Path, given: Any) -> Expansion:
    """The "query_expansion" of a Transformer module's settings in `path`.

    Raises:
        CheckpointError: a key or value that is not known.
    """
    if not isinstance(given, dict) or not {"strategy", "attend", "token", "length"} >= set(given):
        raise CheckpointError(f'{path} has "query_expansion": {given!r}, which is not one of sentence-transformers\'.')
    strategy, token, most = given.get("strategy"), given.get("token"), length(path, given, "length")
    if strategy not in ("fixed", "min") or most is None or not isinstance(token, str | None):
        raise CheckpointError(
            f'{path} has "query_expansion": {given!r}, where a "strategy" of "fixed" or "min" and a "length" are due.'
        )
    return Expansion(most, strategy == "fixed", flag(path, given, "attend", False), token)


def _prompts(path: Path, sentence: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The prompts with PyLate's markers in front, and the markers."""
    given, markers = sentence.get("prompts") or {}, []
    if not isinstance(given, dict) or not all(isinstance(text, str | None) for text in given.values()):
        raise CheckpointError(f'{path} has "prompts": {given!r}, not names with texts.')
    prompts = dict(given)
    for task in ("query", "document"):
        if f"{task}_prefix" not in sentence:
            continue
        marker = sentence[f"{task}_prefix"] or ""
        if not isinstance(marker, str):
            raise CheckpointError(f'{path} has "{task}_prefix": {marker!r}, where a text is needed.')
        prompts[task] = marker + (prompts.get(task) or "").removeprefix(marker)
        markers.append(marker)
    return prompts, tuple(markers)


def _lengths(path: Path, sentence: Mapping[str, Any]) -> dict[str, int]:
    found = {task: length(path, sentence, f"{task}_length") for task in ("query", "document")}
    return {task: number for task, number in found.items() if number is not None}


def _pylate_expansion(path: Path, sentence: Mapping[str, Any]) -> Expansion | None:
    if not flag(path, sentence, "do_query_expansion", True):
        return None
    spelled = "attend_to_expansion_tokens"
    spelled = spelled if spelled in sentence else "attend_to_mask_tokens"
    return Expansion(_lengths(path, sentence).get("query", EXPANDED), attended=flag(path, sentence, spelled, False))


def _clustering(path: Path) -> Clustering:
    config = optional_json(path)
    factor, protected = config.get("pool_factor", 1.0), config.get("num_protected_tokens", 1)
    if not isinstance(factor, (int, float)) or not factor >= 1 or type(protected) is not int or protected < 0:
        raise CheckpointError(f"{path} has a pool_factor below 1, or num_protected_tokens that is no number.")
    unit = flag(path, config, "normalize_embeddings", False)
    return Clustering(float(factor), protected, unit, _words(path, config, "tasks", ("document",)))


def _words(path: Path, config: Mapping[str, Any], key: str, default: Sequence[str]) -> tuple[str, ...]:
    found = config.get(key)
    if found is None:
        return tuple(default)
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise CheckpointError(f'{path} has "{key}": {found!r}, where a list of texts is needed.')
    return tuple(found)


def _numbers(path: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    found = config.get("keep_only_token_ids") or []
    if not isinstance(found, list) or not all(type(number) is int for number in found):
        raise CheckpointError(f'{path} has "keep_only_token_ids": {found!r}, where a list of ids is needed.')
    return tuple(found)
