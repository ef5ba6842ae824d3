"""sentence-transformers, whose results are the right ones; tests that need it skip without it."""

import importlib
from typing import Any

import pytest

# As the extra `oracles` has it: results of older releases differ in places.
OLDEST = "6.2"
MISSING = 'PyTorch oracles are not installed: pip install ".[oracles]"'


def sentence_transformers(module: str = "") -> Any:
    """The library, or a module within it; skips where it is not installed, or older."""
    library = pytest.importorskip("sentence_transformers", OLDEST, reason=MISSING)
    return importlib.import_module(f"{library.__name__}.{module}") if module else library
