"""From a model's name to a local folder: an alias, a repository id on the Hugging Face hub, or a path."""

import os
from enum import Enum
from pathlib import Path

from mlx_embed.errors import ModelNotFoundError

# What is downloaded of a repository: no pickles and no code.
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]
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


def repository_id(name: str | Path) -> str:
    """The repository id that an alias stands for ("all-minilm-l6-v2", "E5_SMALL_V2"); other names unchanged."""
    text = str(name.value if isinstance(name, EmbeddingModelType) else name)
    return _ALIASES.get(text.lower().replace("_", "-"), text)


def resolve(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The local folder of a model, downloaded through `huggingface_hub` where it is not there yet.

    A folder of this name wins over the hub. `HF_HUB_OFFLINE`, `HF_HOME` and the hub's other switches hold.

    Raises:
        ModelNotFoundError: no such folder, and the hub does not have it or cannot be reached.
    """
    # os.path, not pathlib: a name too long for a path, or an unknown ~user, is no folder and no error.
    given = name_or_path.value if isinstance(name_or_path, EmbeddingModelType) else name_or_path
    path = Path(os.path.expanduser(given))
    if os.path.isdir(path):
        return path
    name = repository_id(name_or_path)
    if os.path.exists(path):
        raise ModelNotFoundError(f"{path} is a file; name the folder that holds config.json and the weights.")
    if (
        isinstance(name_or_path, Path)
        or path.is_absolute()
        or name.startswith(("./", "../", "~"))
        or name.count("/") > 1
    ):
        raise ModelNotFoundError(f"There is no folder {path}.")
    return _download(name, revision, cache_dir, local_files_only)


def _download(name: str, revision: str | None, cache_dir: str | Path | None, local_files_only: bool) -> Path:
    # Here, not above: importing huggingface_hub takes longer than importing all of mlx_embed.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

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
        )
    except HFValidationError as error:
        raise ModelNotFoundError(f"{name!r} is neither a folder nor a repository id of the hub.") from error
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"{name} is gated: accept its terms on the hub, then log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(f"{name} has no revision {revision!r} on the hub.") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"The hub has no model {name!r} (or it is private: `hf auth login`), and there is no such folder."
        ) from error
    except LocalEntryNotFoundError as error:
        reason = "downloads are switched off" if local_files_only else "the hub cannot be reached"
        raise ModelNotFoundError(
            f"{name} is not in the local cache and {reason}. Connect once to download it, or give a local folder."
        ) from error
    except Exception as error:  # the disk's, or the HTTP client's own, which are no OSError
        raise ModelNotFoundError(f"{name} could not be downloaded: {error}") from error
