"""What a checkpoint folder says of itself: modules.json, pooling, prompts, lengths (sentence-transformers' layout)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_embed.architectures import architecture
from mlx_embed.architectures.config import LARGEST_SIZE
from mlx_embed.checkpoint.adapters import CONFIG as ADAPTER
from mlx_embed.checkpoint.adapters import Adapter, read_adapter
from mlx_embed.checkpoint.checkpoint import Checkpoint
from mlx_embed.checkpoint.files import optional_json, present, read_json
from mlx_embed.checkpoint.hub import resolve
from mlx_embed.checkpoint.listed import inside, listed, saved_settings
from mlx_embed.checkpoint.logit_score import read_chat, read_logit_score
from mlx_embed.checkpoint.modules import ACTIVATIONS, Dense, LayerNorm, Module, Normalize, Pooled, Pooling
from mlx_embed.checkpoint.multi_vector import STANFORD, MultiVector, is_stanfords, read_expansion, read_multi_vector
from mlx_embed.checkpoint.safetensors import other_weights, read_headers, what_else
from mlx_embed.checkpoint.settings import Settings, flag, length, read_settings
from mlx_embed.checkpoint.sparse import read_sides
from mlx_embed.checkpoint.tasks import is_v5, task_names
from mlx_embed.errors import CheckpointError, UnsupportedModelError, warn
from mlx_embed.pooling import POOLING
from mlx_embed.similarity import SIMILARITY

# Before version 6, sentence-transformers wrote a flag for each pooling mode.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

_STATIC = "StaticEmbedding"
_LOGIT_SCORE = "LogitScore"
# Of what a folder says that it is, the class that computes it, and the option of commands that do.
_OPENED_BY = {
    "SparseEncoder": ("SparseEncoder", "--sparse"),
    "MultiVectorEncoder": ("MultiVectorEncoder", "--multi-vector"),
    "ColBERT": ("MultiVectorEncoder", "--multi-vector"),
    STANFORD: ("MultiVectorEncoder", "--multi-vector"),
    "CrossEncoder": ("CrossEncoder", "--reranker"),
}
# Stanford's ColBERT has its projection beside the encoder's tensors.
PROJECTION = "linear.weight"

# The E5 models were trained with these prefixes, and their repositories carry no prompts.
E5_PROMPTS = {"query": "query: ", "passage": "passage: "}
_E5_NAME = re.compile(r"(?:^|[/-])(?:multilingual-)?e5-(?:small|base|large)(?:-v2|-unsupervised)?(?:/|$)")


def read_checkpoint(
    folder: Path,
    name: str = "",
    kind: str = "SentenceTransformer",
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Read the JSON files of a checkpoint folder.

    A folder without modules.json is a bare transformers checkpoint. As in sentence-transformers 6.2, its tokens are
    averaged, or the last is taken where the first of config.json's architectures is a ...ForCausalLM that is causal;
    vectors are not normalised, and what sentence-transformers' other files say is not read.

    Args:
        folder: the checkpoint.
        name: what the user asked for; E5 models are known by it, or by the folder.
        kind: what it is opened as, "SentenceTransformer", "CrossEncoder", "SparseEncoder" or "MultiVectorEncoder". A
            folder that was saved as another kind of model is read as a bare one, but by the last, which refuses it.
        cache_dir: the hub's cache, for the base model of an adapter that has none beside it.
        local_files_only: whether that may be downloaded.

    Raises:
        CheckpointError: a missing or malformed file.
        UnsupportedModelError: a module, pooling mode or adapter that is not implemented.
        ModelNotFoundError: an adapter's base model is not to be had.
    """
    try:
        str(folder.resolve()).encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{str(folder)!r} is not named in UTF-8, as MLX needs it; rename the folder.") from error
    sentence: Mapping[str, Any] = optional_json(folder / "config_sentence_transformers.json")
    bare = not present(folder / "modules.json") or (sentence.get("model_type") or "SentenceTransformer") != kind
    vectors = read_multi_vector(folder) if kind == "MultiVectorEncoder" else None
    if vectors is not None:
        bare, sentence = vectors.projected, vectors.sentence
    elif bare:
        sentence = {}
    if vectors is not None:
        entries = [("Transformer", vectors.transformer)]
    elif bare:
        entries = [("Transformer", "")]
    else:
        entries = [("Transformer", read_sides(folder).transformer)] if kind == "SparseEncoder" else _entries(folder)
    if entries[0][0] == _STATIC or (bare and _is_model2vec(folder)):
        return _static(folder, name, [(_STATIC, "")] if bare else entries, sentence)
    transformer = inside(folder, entries[0][1])
    adapter = read_adapter(transformer)
    base = _base(adapter, cache_dir=cache_dir, local_files_only=local_files_only)
    scored = kind == "CrossEncoder" and [module for module, _ in entries] == ["Transformer", _LOGIT_SCORE]
    settings = Settings() if bare else read_settings(transformer, _LOGIT_SCORE if scored else kind)
    config = {**_config(base or transformer), **settings.config}
    if adapter is not None and adapter.classifier and is_causal_lm(config):
        config["architectures"] = [config["architectures"][0].replace("ForCausalLM", "ForSequenceClassification")]
    tasks = () if adapter is not None else task_names(transformer, config)
    implementation = architecture(config)
    encoder_config = implementation.Config.from_dict(config)
    hidden_size = encoder_config.hidden_size
    generates = scored or (kind == "CrossEncoder" and bare and is_causal_lm(config))
    if vectors is not None:
        pooling, (modules, dimension) = Pooling(), _of_tokens(folder, vectors, hidden_size)
        vectors = _with_settings(vectors, settings)
    elif len(entries) > 1 and not scored:
        # What config.json calls hidden_size may be the width of layers in front of a last projection.
        stated = getattr(encoder_config, "width", hidden_size)
        pooling, modules, dimension = _modules(folder, entries[1:], hidden_size, stated)
    elif is_v5(config):
        pooling, modules, dimension = Pooling(("lasttoken",)), (Normalize(),), hidden_size
    else:
        pooling, modules, dimension = Pooling((_bare_pooling(config),)), (), hidden_size
    normalize = bool(modules) and isinstance(modules[-1], Normalize)
    tokenizer = {**optional_json(transformer / "tokenizer_config.json"), **settings.tokenizer_config}
    if (
        bare
        and kind != "CrossEncoder"
        and not present(folder / "modules.json")
        and (tokenizer.get("chat_template") or present(transformer / "chat_template.jinja"))
    ):
        warn(
            f"{folder} has a chat template and no modules.json: sentence-transformers 6 would put each text into the "
            "template. mlx_embed embeds the texts as they are."
        )
    return Checkpoint(
        folder=folder,
        transformer=transformer,
        config=config,
        architecture=implementation,
        encoder_config=encoder_config,
        dimension=dimension,
        pooling=pooling,
        modules=modules[:-1] if normalize else modules,
        normalize=normalize,
        max_seq_length=stated_length(transformer / "tokenizer_config.json", settings, tokenizer),
        task_lengths=(settings.task_lengths if vectors is None else vectors.lengths) if settings.truncation else {},
        do_lower_case=settings.do_lower_case,
        special_tokens=settings.special_tokens,
        tokenizer_config=tokenizer,
        base=base,
        adapter=adapter,
        tasks=tasks,
        generates=generates,
        score=read_logit_score(inside(folder, entries[1][1]), encoder_config.vocab_size) if scored else None,
        chat=read_chat(transformer, tokenizer, settings.modalities, settings.chat) if kind == "CrossEncoder" else None,
        multi_vector=vectors,
        **_of_sentences(folder, name, sentence, dimension),
    )


def _is_model2vec(folder: Path) -> bool:
    """Whether a folder without modules.json is a static model that model2vec saved."""
    return bool(optional_json(folder / "config.json").get("model_type") == "model2vec")


def _static(folder: Path, name: str, entries: Sequence[tuple[str, str]], sentence: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint of a static model, whose first module is a table."""
    from mlx_embed.architectures import static
    from mlx_embed.checkpoint.static import read_static

    place = inside(folder, entries[0][1])
    found = read_static(place)
    config = static.Config.from_dict(found.config)
    modules, dimension = _after(folder, entries[1:], config.hidden_size)
    normalize = bool(modules) and isinstance(modules[-1], Normalize)
    return Checkpoint(
        folder=folder,
        transformer=place,
        config=found.config,
        architecture=static,
        encoder_config=config,
        dimension=dimension,
        pooling=Pooled(),
        modules=modules[:-1] if normalize else modules,
        normalize=normalize if found.normalize is None else found.normalize,
        max_seq_length=found.max_length,
        special_tokens=False,
        tokenizer_config=found.tokenizer_config or {},
        token_characters=found.token_characters,
        **_of_sentences(folder, name, sentence, dimension),
    )


def _of_sentences(folder: Path, name: str, sentence: Mapping[str, Any], dimension: int) -> dict[str, Any]:
    """What config_sentence_transformers.json says of texts and vectors, as Checkpoint has it."""
    prompts = _prompts(sentence, [name, str(folder.resolve())])
    default = sentence.get("default_prompt_name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise CheckpointError(
            f"{folder / 'config_sentence_transformers.json'} names the default prompt {default!r}, "
            f"but has the prompts {sorted(prompts)}."
        )
    similarity = sentence.get("similarity_fn_name") or "cosine"
    if not isinstance(similarity, str) or similarity not in SIMILARITY:
        raise UnsupportedModelError(f"similarity_fn_name {similarity!r} is not one of {', '.join(SIMILARITY)}.")
    return {
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity": similarity,
        "truncate_dim": _truncate_dim(sentence, dimension),
        "sentence": sentence,
    }


def _base(adapter: Adapter | None, *, cache_dir: str | Path | None, local_files_only: bool) -> Path | None:
    """The folder of the model that an adapter changes, where that is not beside it, as in transformers."""
    if adapter is None or present(adapter.folder / "config.json"):
        return None
    if not adapter.base:
        raise CheckpointError(
            f'{adapter.folder} has an adapter alone, whose {ADAPTER} names no "base_model_name_or_path"; '
            "save it with the model that it was trained on."
        )
    base = resolve(adapter.base, revision=adapter.revision, cache_dir=cache_dir, local_files_only=local_files_only)
    if present(base / ADAPTER):
        raise UnsupportedModelError(f"{base}, the base model of {adapter.folder}, has an adapter itself; merge it.")
    return base


def _config(folder: Path) -> dict[str, Any]:
    """config.json; where it is missing, CheckpointError says what else the folder has."""
    path = folder / "config.json"
    if not present(path) and other_weights(folder):
        raise CheckpointError(f"{path} is missing, and so is model.safetensors. {what_else(folder)}")
    return read_json(path)


def say_other_kind(folder: Path) -> None:
    """Warn where a folder that is opened as an embedding model says that it is a model of another kind."""
    bare = not present(folder / "modules.json")
    stated = STANFORD if bare and is_stanfords(folder) else saved_settings(folder).get("model_type")
    if not isinstance(stated, str) or stated not in _OPENED_BY:
        return
    kind, option = _OPENED_BY[stated]
    warn(
        f"{folder} was saved as a {stated}. Its tokens are averaged here, which it was not trained for: "
        f"{kind}.from_pretrained, or a command's {option}, computes what it was."
    )


def _bare_pooling(config: Mapping[str, Any]) -> str:
    """How sentence-transformers 6.2 pools what has no Pooling module."""
    return "lasttoken" if is_causal_lm(config) and config.get("is_causal", True) else "mean"


def is_causal_lm(config: Mapping[str, Any]) -> bool:
    """Whether the first of config.json's architectures is a causal language model."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return isinstance(first, str) and first.endswith("ForCausalLM")


def _entries(folder: Path) -> list[tuple[str, str]]:
    """modules.json as (module kind, its folder), a Transformer first, or a StaticEmbedding."""
    entries = listed(folder)
    order = [kind for kind, _ in entries]
    if order[:1] not in (["Transformer"], [_STATIC]) or not {"Transformer", _STATIC}.isdisjoint(order[1:]):
        raise UnsupportedModelError(
            f"{folder / 'modules.json'} lists {' -> '.join(order) or 'nothing'}; mlx_embed runs one Transformer, or "
            "StaticEmbedding, and that first."
        )
    return entries


def _modules(
    folder: Path, entries: Sequence[tuple[str, str]], hidden_size: int, stated: int
) -> tuple[Pooling, tuple[Module, ...], int]:
    """What follows the Transformer, and the dimension of the vectors that come out; `stated` is as of `_pooling`."""
    (first, path), *rest = entries
    if first != "Pooling":
        raise UnsupportedModelError(
            f"{folder / 'modules.json'} has {first} after the Transformer; mlx_embed runs Pooling there."
        )
    pooling = _pooling(inside(folder, path) / "config.json", hidden_size, stated)
    return pooling, *_after(folder, rest, hidden_size * len(pooling.modes))


def _of_tokens(folder: Path, vectors: MultiVector, hidden_size: int) -> tuple[tuple[Module, ...], int]:
    """The modules of a model of a vector a token, and the dimension of what comes out."""
    rest, dimension = _after(folder, vectors.modules, hidden_size, "token_embeddings")
    if not vectors.projected:
        return rest, dimension
    tensor = next((tensor for tensor in read_headers(folder) if tensor.name == PROJECTION), None)
    if tensor is None or len(tensor.shape) != 2:
        raise CheckpointError(f"{folder} has no tensor {PROJECTION} [dimensions, {hidden_size}], its projection.")
    dimension = tensor.shape[0]
    return (Dense(folder, hidden_size, dimension, "Identity", bias=False, beside=True), *rest), dimension


def _with_settings(vectors: MultiVector, settings: Settings) -> MultiVector:
    """With what the encoder's own settings say of queries and documents, which counts."""
    expansion, lengths = vectors.expansion, {**vectors.lengths, **settings.task_lengths}
    if settings.expansion is not None:
        expansion = read_expansion(*settings.expansion)
    if expansion is not None and (expansion.fixed or "query" in lengths):
        lengths["query"] = expansion.length if expansion.fixed else max(lengths["query"], expansion.length)
    return replace(vectors, expansion=expansion, lengths=lengths)


def _after(
    folder: Path, rest: Sequence[tuple[str, str]], dimension: int, feature: str = "sentence_embedding"
) -> tuple[tuple[Module, ...], int]:
    """The modules that follow vectors of this dimension, and the dimension of what comes out; `feature` names them."""
    modules: list[Module] = []
    for kind, path in rest:
        place = inside(folder, path)
        if kind == "Dense":
            dense = _dense(place, dimension, feature)
            dimension = dense.out_features
            modules.append(dense)
        elif kind == "LayerNorm":
            _expect(place / "config.json", "dimension", read_json(place / "config.json").get("dimension"), dimension)
            modules.append(LayerNorm(place, dimension))
        elif kind == "Normalize":
            _check_features(place / "config.json", optional_json(place / "config.json"), feature)
            modules.append(Normalize())
        elif kind != "Dropout":  # which does nothing once a model is trained
            raise UnsupportedModelError(
                f"{folder / 'modules.json'} has the module {kind} after {'Pooling' if feature[0] == 's' else 'it'}; "
                "mlx_embed has Dense, Dropout, LayerNorm and Normalize."
            )
    return tuple(modules), dimension


def _pooling(path: Path, hidden_size: int, stated: int) -> Pooling:
    """How tokens are pooled; sentence-transformers writes config.json's hidden_size, `stated`, whatever comes out."""
    config = read_json(path)
    for key in ("embedding_dimension", "word_embedding_dimension"):
        if config.get(key) != stated:
            _expect(path, key, config.get(key, hidden_size), hidden_size)
    named = config.get("pooling_mode")
    if named is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    else:
        modes = named if isinstance(named, list) else [named]
    if not modes or not all(isinstance(mode, str) and mode in POOLING for mode in modes) or len(modes) > len(POOLING):
        raise UnsupportedModelError(f"{path} asks for pooling by {modes}; mlx_embed has {', '.join(POOLING)}.")
    return Pooling(tuple(modes), flag(path, config, "include_prompt", True))


def _dense(folder: Path, dimension: int, feature: str) -> Dense:
    path = folder / "config.json"
    config = read_json(path)
    _check_features(path, config, feature)
    _expect(path, "in_features", config.get("in_features"), dimension)
    out_features = config.get("out_features")
    if type(out_features) is not int or not 1 <= out_features <= LARGEST_SIZE:
        raise CheckpointError(f'{path} has "out_features": {out_features!r}, where a number of dimensions is needed.')
    named = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    package, _, activation = str(named).rpartition(".")
    if package.split(".")[0] != "torch" or activation not in ACTIVATIONS:
        raise UnsupportedModelError(
            f'{path} has "activation_function": {named!r}; mlx_embed has torch\'s {", ".join(ACTIVATIONS)}.'
        )
    return Dense(
        folder,
        dimension,
        out_features,
        activation,
        bias=flag(path, config, "bias", True),
        residual=flag(path, config, "use_residual", False),
    )


def _check_features(path: Path, config: Mapping[str, Any], feature: str) -> None:
    """A module that works on anything but the text's vector, or its tokens', belongs to another kind of model."""
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, feature):
            raise UnsupportedModelError(f'{path} has "{key}": {config[key]!r}; mlx_embed knows "{feature}" here.')


def _expect(path: Path, key: str, found: Any, needed: int) -> None:
    if type(found) is not int or found != needed:
        raise CheckpointError(f'{path} has "{key}": {found!r}, but the module before it gives {needed} dimensions.')


def _truncate_dim(sentence: Mapping[str, Any], dimension: int) -> int | None:
    value = sentence.get("truncate_dim")
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise CheckpointError(
            f'config_sentence_transformers.json has "truncate_dim": {value!r}, where a number of dimensions is needed.'
        )
    return min(value, dimension)


def _prompts(sentence: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    given = sentence.get("prompts") or {}
    if not isinstance(given, dict) or not all(isinstance(text, str | None) for text in given.values()):
        raise CheckpointError(f'config_sentence_transformers.json has "prompts": {given!r}, not names with texts.')
    given = {key: text or "" for key, text in given.items()}
    if not any(given.values()) and any(_E5_NAME.search(name.replace("--", "/")) for name in names):
        return dict(E5_PROMPTS)
    return given


def stated_length(path: Path, settings: Settings, tokenizer: Mapping[str, Any]) -> int | None:
    """The tokens at which texts are cut, by the encoder's settings or tokenizer_config.json at `path`; None is none."""
    if not settings.truncation:
        return None
    key = "model_max_length" if "model_max_length" in tokenizer else "max_len"
    return settings.max_length or length(path, tokenizer, key)
