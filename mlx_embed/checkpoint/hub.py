"""From a model's name to a local folder: an alias, a repository id on the Hugging Face hub, or a path."""

import logging
import os
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from mlx_embed.arguments import is_folder, path_of, type_name
from mlx_embed.checkpoint import cache, packaged
from mlx_embed.errors import ModelNotFoundError, warn

logger = logging.getLogger("mlx_embed")

# What huggingface_hub has asked with, over the years; their own errors mean that there was no answer.
_HTTP_CLIENTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3")
# What is downloaded of a repository: no pickles and no code.
PATTERNS = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model", "artifact.metadata"]
IGNORED = ["onnx/*", "openvino/*", "coreml/*", "*/checkpoint-*/*"]


class EmbeddingModelType(str, Enum):
    """Well-known models; each value is a repository id on the hub."""

    E5_SMALL_V2 = "intfloat/e5-small-v2"
    ALL_MINILM_L6_V2 = "sentence-transformers/all-MiniLM-L6-v2"
    ALL_MPNET_BASE_V2 = "sentence-transformers/all-mpnet-base-v2"


DEFAULT_MODEL = EmbeddingModelType.E5_SMALL_V2
_ALIASES = {
    alias: model.value
    for model in EmbeddingModelType
    for alias in (model.name.lower().replace("_", "-"), model.value.rsplit("/", 1)[-1].lower())
}

# Where sentence-transformers looks for a model whose name has no organisation.
ORGANISATION = "sentence-transformers"
# The hub's oldest models have none. These are the families of them that mlx_embed can load; other names of theirs,
# distilbert-base-nli-mean-tokens for example, are sentence-transformers' own.
_WITHOUT_ORGANISATION = {
    *(f"bert-base-{kind}" for kind in ("cased", "uncased", "chinese", "german-cased", "cased-finetuned-mrpc")),
    *(f"bert-base-{kind}" for kind in ("german-dbmdz-cased", "german-dbmdz-uncased")),
    *(f"bert-base-multilingual-{case}" for case in ("cased", "uncased")),
    *(
        f"bert-large-{case}{kind}"
        for case in ("cased", "uncased")
        for kind in ("", "-whole-word-masking", "-whole-word-masking-finetuned-squad")
    ),
    *(f"distilbert-base-{kind}" for kind in ("cased", "uncased", "german-cased", "multilingual-cased")),
    *(f"distilbert-base-{case}-distilled-squad" for case in ("cased", "uncased")),
    "distilbert-base-uncased-finetuned-sst-2-english",
    *("roberta-base", "roberta-large", "roberta-large-mnli", "distilroberta-base", "camembert-base"),
    *("roberta-base-openai-detector", "roberta-large-openai-detector"),
    *("xlm-roberta-base", "xlm-roberta-large"),
    *(f"xlm-roberta-large-finetuned-conll02-{language}" for language in ("dutch", "spanish")),
    *(f"xlm-roberta-large-finetuned-conll03-{language}" for language in ("english", "german")),
}


class Found(NamedTuple):
    """A model's folder, absolute, and its name: a repository id, or as it was given."""

    folder: Path
    name: str


def repository_id(name: str | Path) -> str:
    """The repository id that an alias stands for ("all-minilm-l6-v2", "E5_SMALL_V2"); other names unchanged."""
    text = str(name.value if isinstance(name, EmbeddingModelType) else name)
    return _ALIASES.get(text.lower().replace("_", "-"), text)


def served_name(model: str | Path) -> str:
    """What a server calls a model: its repository id, or of a folder the last part of the path."""
    return path_of("model", model).resolve().name if is_folder(model) else repository_id(model)


def lasting_name(name: str | Path, folder: Path | None = None) -> str:
    """A name by which a model is found again wherever the process is then: of a folder its absolute path.

    `folder` is that of a model which is loaded, and `name` what it was called.
    """
    text = repository_id(name)
    if folder is None:
        return str(path_of("model", text)) if is_folder(text) else text
    relative = Path(os.path.normpath(text)).parts  # the process may have changed its folder since
    return str(folder) if folder.parts[-len(relative) :] == relative else text


def resolve(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder that `find` finds."""
    return find(name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only).folder


def find(
    name_or_path: str | Path | None = None,
    *,
    organisation: str = ORGANISATION,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Found:
    """The local folder of a model, downloaded through `huggingface_hub` where it is not there yet.

    A folder of this name wins over the hub. `HF_HUB_OFFLINE`, `HF_HOME` and the hub's other switches hold. A name
    without organisation is looked for under `organisation`. all-MiniLM-L6-v2 needs no network where the package that
    `packaged` describes is installed: it comes from the hub's cache, or else from there. None is the default model, and
    all-MiniLM-L6-v2 of that package, with a warning, where the hub cannot be reached; other organisations have none.

    Raises:
        ModelNotFoundError: no such folder, and the hub does not have it or cannot be reached; an empty name.
        TypeError: something that names no model.
    """
    embeds = organisation == ORGANISATION
    if name_or_path is None and embeds:
        return _default(revision, cache_dir, local_files_only)
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise TypeError(f"A model is named by a string or a Path: {name_or_path!r} is {type_name(name_or_path)}.")
    if not name_or_path:
        raise ModelNotFoundError('The name of the model is empty; name it, or "." for the current folder.')
    # os.path, not pathlib: a name too long for a path, or an unknown ~user, is no folder and no error.
    given = name_or_path.value if isinstance(name_or_path, EmbeddingModelType) else name_or_path
    path = Path(os.path.expanduser(given))
    name = repository_id(name_or_path)
    if os.path.isdir(path):
        return Found(path.absolute(), name)
    if os.path.exists(path):
        raise ModelNotFoundError(f"{path} is a file; name the folder that holds config.json and the weights.")
    if (
        isinstance(name_or_path, Path)
        or path.is_absolute()
        or name.startswith(("./", "../", "~"))
        or name.count("/") > 1
    ):
        raise ModelNotFoundError(f"There is no folder {path}.")
    if "/" not in name and name.lower() not in _WITHOUT_ORGANISATION:
        name = f"{organisation}/{name}"
    if name == EmbeddingModelType.ALL_MINILM_L6_V2 and revision is None and packaged.installed():
        try:
            return Found(_download(name, str(given), None, cache_dir, local_files_only=True), name)
        except ModelNotFoundError:
            return Found(_packaged(), name)
    return Found(_download(name, str(given), revision, cache_dir, local_files_only, embeds=embeds), name)


def _default(revision: str | None, cache_dir: str | Path | None, local_files_only: bool) -> Found:
    try:
        return find(DEFAULT_MODEL, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    except ModelNotFoundError as error:
        if not error.not_reached or revision is not None or packaged.installed() is None:
            raise
    other = EmbeddingModelType.ALL_MINILM_L6_V2.value
    warn(
        f"The default model, {DEFAULT_MODEL.value}, is not in the local cache and the hub cannot be reached: this is "
        f"{other}, of the installed package {packaged.PACKAGE}. Their vectors do not go together; name the model to "
        "have one of them always."
    )
    return Found(_packaged(), other)


def _packaged() -> Path:
    folder = packaged.folder()
    assert folder is not None  # it is installed
    logger.info("all-MiniLM-L6-v2 is that of the installed package %s.", packaged.PACKAGE)
    return folder


def _download(
    name: str,
    given: str,
    revision: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    *,
    embeds: bool = True,
) -> Path:
    # Here, not above: importing huggingface_hub takes longer than importing all of mlx_embed.
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                allow_patterns=PATTERNS,
                ignore_patterns=IGNORED,
            )
        ).absolute()
    except Exception as error:  # also the HTTP client's own, which are no OSError
        logger.debug("%s was not to be had.", name, exc_info=True)
        # Of IncompleteSnapshotError, which huggingface_hub has from 2.4 on.
        snapshot = getattr(error, "snapshot_path", None)
        if snapshot is None:
            refusal = _refusal(error, name, given, revision, local_files_only, embeds)
        elif lacking := cache.needed(_listed(name, revision, cache_dir), Path(snapshot)):
            names = f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'}"
            refusal = ModelNotFoundError(
                f"{name} is in the local cache, but incomplete: {names} missing. Connect once to download the rest."
            )
        else:
            return Path(snapshot).absolute()
    # Not `from error`: what the hub's client says takes three screens, and the sentence has what matters.
    raise refusal


def _listed(name: str, revision: str | None, cache_dir: str | Path | None) -> list[str]:
    """The files that the cache knows a repository to have."""
    from huggingface_hub import get_cached_repo_tree

    return [file.path for file in get_cached_repo_tree(name, revision=revision, cache_dir=cache_dir)]


def _refusal(
    error: Exception, name: str, given: str, revision: str | None, local_files_only: bool, embeds: bool
) -> ModelNotFoundError:
    """The sentence for an error of the hub's client; an embedding model has one in its place that needs no hub."""
    from huggingface_hub import errors

    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if isinstance(error, errors.HFValidationError):
        return ModelNotFoundError(f"{given!r} is neither a folder nor a repository id of the hub.{_nearest(given)}")
    if isinstance(cause, errors.GatedRepoError):
        return ModelNotFoundError(
            f"There is no permission to read {name}, which is gated: accept its terms on the hub, then log in with "
            "`hf auth login`."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFoundError(f"{name} has no revision {revision!r} on the hub.")
    if isinstance(error, errors.RepositoryNotFoundError):
        # To who is not logged in, the hub says 401 of a private repository and of none alike.
        private = "" if status == 404 else " (or it is private: `hf auth login`)"
        return ModelNotFoundError(
            f"The hub has no model {name!r}{private}, and there is no such folder.{_nearest(given)}"
        )
    if status in (401, 403):
        return ModelNotFoundError(f"There is no permission to read {name}: log in with `hf auth login`.")
    if local_files_only:
        reason = "downloads are switched off"
    elif isinstance(cause, errors.OfflineModeIsEnabled):
        reason = "downloads are switched off by HF_HUB_OFFLINE"
    elif isinstance(cause, errors.HfHubHTTPError):
        reason = f"the hub answers with an error ({str(cause).strip().splitlines()[0]})"
    elif cause is not error or type(error).__module__.split(".")[0] in _HTTP_CLIENTS:
        reason = "the hub cannot be reached"
    else:
        return ModelNotFoundError(f"{name} could not be downloaded: {error}")
    other = f"; without the hub, `{packaged.INSTALL}` brings the model all-minilm-l6-v2" if embeds else ""
    return ModelNotFoundError(
        f"{name} is not in the local cache and {reason}. Connect once to download it, or give a local folder{other}."
        f"{_nearest(given)}",
        not_reached=True,
    )


def _nearest(given: str) -> str:
    """A hint at the name that is nearest to one that is none."""
    near = get_close_matches(
        given.lower().replace("_", "-"), [*_ALIASES, *map(str.lower, _ALIASES.values())], n=1, cutoff=0.8
    )
    if not near or repository_id(given) in _ALIASES.values():
        return ""
    alias = near[0].rsplit("/", 1)[-1]
    return f" The nearest name known here is {alias!r}."
