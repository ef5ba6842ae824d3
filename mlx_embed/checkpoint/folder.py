"""What a checkpoint folder says of itself: modules.json, pooling, prompts, lengths (sentence-transformers' layout)."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_embed.architectures import Architecture, EncoderConfig, architecture
from mlx_embed.architectures.config import LARGEST_SIZE
from mlx_embed.checkpoint.files import present, read_json
from mlx_embed.checkpoint.modules import ACTIVATIONS, Dense, LayerNorm, Module, Normalize, Pooling
from mlx_embed.errors import CheckpointError, UnsupportedModelError
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

# Where the Transformer module keeps its settings: today, then in sentence-transformers 0.x.
_TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_xlm-roberta_config.json",
)

# The E5 models were trained with these prefixes, and their repositories carry no prompts.
E5_PROMPTS = {"query": "query: ", "passage": "passage: "}
_E5_NAME = re.compile(r"(?:^|[/-])(?:multilingual-)?e5-(?:small|base|large)(?:-v2|-unsupervised)?(?:/|$)")

# Above this, tokenizer_config.json's model_max_length is a placeholder for "no limit".
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder, read and checked, without its weights.

    Attributes:
        folder: the checkpoint's root.
        transformer: the folder of config.json, tokenizer.json and the weights; often the root itself.
        config: config.json.
        architecture: the file that implements its model_type.
        encoder_config: the part of config.json that shapes the encoder, checked.
        dimension: the length of a vector, before any truncation.
        pooling: how hidden states become one vector a text.
        modules: what is applied to the vectors after that, in order, without a last Normalize.
        normalize: whether vectors are scaled to length 1 in the end, after any truncation.
        truncate_dim: the dimensions that `encode` keeps where it is told nothing else; None keeps all.
        max_seq_length: the longest text in tokens that the checkpoint names; None where it names none.
        do_lower_case: whether texts are lowercased before the tokenizer's own normalisation.
        token_types: whether the tokenizer tells which of a pair's texts a token is of, as transformers 5 has it.
        truncation_side: the end at which long texts are cut, "right" or "left".
        prompts: prompt name to text.
        default_prompt_name: the prompt that `encode` applies when it is given none.
        similarity: one of cosine, dot, euclidean, manhattan.
    """

    folder: Path
    transformer: Path
    config: Mapping[str, Any]
    architecture: Architecture
    encoder_config: EncoderConfig
    dimension: int
    pooling: Pooling = field(default_factory=Pooling)
    modules: tuple[Module, ...] = ()
    normalize: bool = False
    truncate_dim: int | None = None
    max_seq_length: int | None = None
    do_lower_case: bool = False
    token_types: bool = False
    truncation_side: str = "right"
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"


def read_checkpoint(folder: Path, name: str = "") -> Checkpoint:
    """Read the JSON files of a checkpoint folder.

    A folder without modules.json is a bare transformers checkpoint: mean pooling, vectors not normalised, as in
    sentence-transformers. `name` is what the user asked for; E5 models are known by it, or by the folder.

    Raises:
        CheckpointError: a missing or malformed file.
        UnsupportedModelError: a module or pooling mode that is not implemented.
    """
    try:
        str(folder.resolve()).encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{str(folder)!r} is not named in UTF-8, as MLX needs it; rename the folder.") from error
    entries = _entries(folder)
    transformer = _inside(folder, entries[0][1])
    config = read_json(transformer / "config.json")
    implementation = architecture(config)
    encoder_config = implementation.Config.from_dict(config)
    pooling, modules, dimension = _modules(folder, entries[1:], encoder_config.hidden_size)
    normalize = bool(modules) and isinstance(modules[-1], Normalize)
    settings = [transformer / file for file in _TRANSFORMER_FILES]
    settings_path = next((path for path in settings if present(path)), settings[0])
    bert = _optional_json(settings_path)
    tokenizer = _optional_json(transformer / "tokenizer_config.json")
    sentence = _optional_json(folder / "config_sentence_transformers.json")
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
        truncate_dim=_truncate_dim(sentence, dimension),
        max_seq_length=_max_seq_length(bert, tokenizer),
        do_lower_case=_flag(settings_path, bert, "do_lower_case", False),
        token_types=_token_types(tokenizer),
        truncation_side="left" if tokenizer.get("truncation_side") == "left" else "right",
        prompts=prompts,
        default_prompt_name=default,
        similarity=similarity,
    )


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if present(path) else {}


def _entries(folder: Path) -> list[tuple[str, str]]:
    """modules.json as (module kind, its folder), a Transformer first; without the file, a Transformer at the root."""
    path = folder / "modules.json"
    if not present(path):
        return [("Transformer", "")]
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        entries = [(str(entry["type"]).rsplit(".", 1)[-1], str(entry["path"])) for entry in listed]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a list of modules with a type and a path ({error!r}).") from error
    order = [kind for kind, _ in entries]
    if order[:1] != ["Transformer"] or "Transformer" in order[1:]:
        raise UnsupportedModelError(
            f"{path} lists {' -> '.join(order) or 'nothing'}; mlx_embed runs one Transformer, and that first."
        )
    return entries


def _modules(
    folder: Path, entries: Sequence[tuple[str, str]], hidden_size: int
) -> tuple[Pooling, tuple[Module, ...], int]:
    """What follows the Transformer, and the dimension of the vectors that come out; a bare Transformer is averaged."""
    if not entries:
        return Pooling(), (), hidden_size
    (first, path), *rest = entries
    if first != "Pooling":
        raise UnsupportedModelError(
            f"{folder / 'modules.json'} has {first} after the Transformer; mlx_embed runs Pooling there."
        )
    pooling = _pooling(_inside(folder, path) / "config.json", hidden_size)
    dimension = hidden_size * len(pooling.modes)
    modules: list[Module] = []
    for kind, path in rest:
        place = _inside(folder, path)
        if kind == "Dense":
            dense = _dense(place, dimension)
            dimension = dense.out_features
            modules.append(dense)
        elif kind == "LayerNorm":
            _expect(place / "config.json", "dimension", read_json(place / "config.json").get("dimension"), dimension)
            modules.append(LayerNorm(place, dimension))
        elif kind == "Normalize":
            _check_features(place / "config.json", _optional_json(place / "config.json"))
            modules.append(Normalize())
        elif kind != "Dropout":  # which does nothing once a model is trained
            raise UnsupportedModelError(
                f"{folder / 'modules.json'} has the module {kind} after Pooling; "
                "mlx_embed has Dense, Dropout, LayerNorm and Normalize."
            )
    return pooling, tuple(modules), dimension


def _inside(folder: Path, path: str) -> Path:
    # Not resolved: the hub's cache keeps a checkpoint's files as links to elsewhere.
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise CheckpointError(f"{folder / 'modules.json'} points to {path!r}, outside the checkpoint.")
    return folder / path


def _pooling(path: Path, hidden_size: int) -> Pooling:
    config = read_json(path)
    for key in ("embedding_dimension", "word_embedding_dimension"):
        _expect(path, key, config.get(key, hidden_size), hidden_size)
    named = config.get("pooling_mode")
    if named is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    else:
        modes = named if isinstance(named, list) else [named]
    if not modes or not all(isinstance(mode, str) and mode in POOLING for mode in modes) or len(modes) > len(POOLING):
        raise UnsupportedModelError(f"{path} asks for pooling by {modes}; mlx_embed has {', '.join(POOLING)}.")
    return Pooling(tuple(modes), _flag(path, config, "include_prompt", True))


def _dense(folder: Path, dimension: int) -> Dense:
    path = folder / "config.json"
    config = read_json(path)
    _check_features(path, config)
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
        bias=_flag(path, config, "bias", True),
        residual=_flag(path, config, "use_residual", False),
    )


def _check_features(path: Path, config: Mapping[str, Any]) -> None:
    """A module that works on anything but the text's vector belongs to another kind of model."""
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise UnsupportedModelError(f'{path} has "{key}": {config[key]!r}; mlx_embed knows "sentence_embedding".')


def _expect(path: Path, key: str, found: Any, needed: int) -> None:
    if type(found) is not int or found != needed:
        raise CheckpointError(f'{path} has "{key}": {found!r}, but the module before it gives {needed} dimensions.')


def _flag(path: Path, config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CheckpointError(f'{path} has "{key}": {value!r}, where true or false is needed.')
    return value


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


def _token_types(tokenizer: Mapping[str, Any]) -> bool:
    names = tokenizer.get("model_input_names")
    if isinstance(names, list):
        return "token_type_ids" in names
    return str(tokenizer.get("tokenizer_class") or "Bert").startswith("Bert")


def _max_seq_length(bert: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int | None:
    for config, key in ((bert, "max_seq_length"), (tokenizer, "model_max_length")):
        value = config.get(key)
        if value is None or (isinstance(value, (int, float)) and value > _NO_LIMIT):
            continue
        if type(value) is not int or value < 1:
            raise CheckpointError(f'the checkpoint has "{key}": {value!r}, where a number of tokens is needed.')
        return value
    return None
