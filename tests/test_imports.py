"""The shape of the package: what it exports, what imports what, and what importing it loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mlx_embed

ROOT = Path(__file__).parents[1]

# The stages, from the last to the first: a module imports only modules further down.
ORDER = [
    "cli",
    "compare",
    "environment",
    "tuning",
    "__init__",
    "launches",
    "convert",
    "retrieval",
    "cross_encoder",
    "model",
    "quantization",
    "tokenizer",
    "vocabulary",
    "batching",
    "weights",
    "config",
    "architectures",
    "modules",
    "pooling",
    "similarity",
    "hub",
    "device",
    "errors",
]


def imported(path: Path) -> set[str]:
    """The modules of this repository that a file imports when it is imported."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith(("mlx_embed", "custom_kernels"))}


@pytest.mark.parametrize("path", sorted((ROOT / "mlx_embed").glob("*.py")), ids=lambda p: p.stem)
def test_stages_import_only_earlier_stages(path: Path) -> None:
    place = ORDER.index(path.stem)
    for name in imported(path):
        if name.startswith("mlx_embed."):
            assert ORDER.index(name.split(".")[1]) > place, name


@pytest.mark.parametrize("path", sorted((ROOT / "mlx_embed/architectures").glob("*.py")), ids=lambda p: p.stem)
def test_architectures_know_no_text_files_or_hub(path: Path) -> None:
    known = ("mlx_embed.architectures", "mlx_embed.errors", "custom_kernels")
    assert all(name.startswith(known) for name in imported(path))


def test_exported_members() -> None:
    assert sorted(mlx_embed.__all__) == mlx_embed.__all__
    assert set(mlx_embed.__all__) == {
        "CheckpointError",
        "CrossEncoder",
        "EmbeddingModel",
        "EmbeddingModelType",
        "EncodeInfo",
        "MLXEmbedError",
        "ModelNotFoundError",
        "TruncationWarning",
        "UnsupportedModelError",
        "__version__",
        "convert",
    }


def test_import_loads_nothing_heavy() -> None:
    script = "import sys, mlx_embed; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(run.stdout.split())
    assert "mlx.core" in loaded
    assert not loaded & {"huggingface_hub", "transformers", "torch", "tqdm", "requests", "httpx", "multiprocessing"}
