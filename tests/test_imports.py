"""The shape of the package: what it exports, what imports what, and what importing it loads."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import mlx_embed

ROOT = Path(__file__).parents[1]

# The levels, from the top down: a module imports only modules of levels below its own, or of its own folder.
LEVELS = [
    ("mlx_embed.__main__",),
    ("mlx_embed.cli",),
    ("mlx_embed.commands",),
    ("mlx_embed.encode_files",),
    ("mlx_embed.integrations", "mlx_embed.serve", "mlx_embed.jobs"),
    ("mlx_embed.measure", "mlx_embed.maps"),
    ("mlx_embed",),
    ("mlx_embed.convert",),
    ("mlx_embed.index",),
    ("mlx_embed.records",),
    ("mlx_embed.evaluation", "mlx_embed.destination", "mlx_embed.kinds"),
    (
        "mlx_embed.embedding_model",
        "mlx_embed.cross_encoder",
        "mlx_embed.sparse_encoder",
        "mlx_embed.multi_vector_encoder",
        "mlx_embed.bge_m3",
    ),
    ("mlx_embed.loading", "mlx_embed.codes"),
    ("mlx_embed.options", "mlx_embed.int8_layers"),
    ("mlx_embed.encoding",),
    ("mlx_embed.window", "mlx_embed.embedding_head", "mlx_embed.static_tokenizer", "mlx_embed.late_interaction"),
    ("mlx_embed.texts", "mlx_embed.tokenizer", "mlx_embed.engine", "mlx_embed.vector_dtypes"),
    ("mlx_embed.batching", "mlx_embed.multi_vectors"),
    ("mlx_embed.ids",),
    ("mlx_embed.checkpoint",),
    ("mlx_embed.similarity", "mlx_embed.sparse_vectors", "mlx_embed.pooling", "mlx_embed.search", "mlx_embed.scores"),
    ("mlx_embed.architectures",),
    (
        "mlx_embed.errors",
        "mlx_embed.migration",
        "mlx_embed.arguments",
        "mlx_embed.pages",
        "mlx_embed.progress",
        "mlx_embed.packed",
        "mlx_embed.terminal",
        "mlx_embed.words",
    ),
    ("custom_kernels",),
]
# What an extra brings, and the only file or folder that may import it.
EXTRAS = {
    "langchain_core": "mlx_embed/integrations/langchain",
    "langchain_qdrant": "mlx_embed/integrations/langchain_qdrant.py",
    "langchain_milvus": "mlx_embed/integrations/langchain_milvus.py",
    "llama_index": "mlx_embed/integrations/llama_index",
    "chromadb": "mlx_embed/integrations/chroma.py",
    "pyarrow": (
        "mlx_embed/records/parquet.py",
        "mlx_embed/index/export.py",
        "mlx_embed/index/load.py",
        "mlx_embed/maps/parquet.py",
    ),
    "pacmap": "mlx_embed/maps/layout.py",
    "lancedb": ("mlx_embed/index/export.py", "mlx_embed/index/load.py"),
    "sentence_transformers": "mlx_embed/integrations/sentence_transformers.py",
    "torch": "mlx_embed/integrations/sentence_transformers.py",
    "keybert": "mlx_embed/integrations/keybert.py",
    "bertopic": "mlx_embed/integrations/bertopic.py",
    "mteb": "mlx_embed/integrations/mteb.py",
    "scipy": "mlx_embed/sparse_vectors.py",
    "pypdf": "mlx_embed/index/office.py",
    "docx": "mlx_embed/index/office.py",
    "ray": "mlx_embed/jobs/",
    "jinja2": "mlx_embed/tokenizer/chat.py",
    "nanotoken": "mlx_embed/tokenizer/nano.py",
    "starlette": "mlx_embed/serve/",
    "uvicorn": "mlx_embed/serve/",
    "msgspec": "mlx_embed/serve/",
    "orjson": "mlx_embed/serve/",
    "prometheus_client": "mlx_embed/serve/",
    "vl_convert": "mlx_embed/pages/charts.py",
}
FILES = sorted([*(ROOT / "mlx_embed").rglob("*.py"), *(ROOT / "custom_kernels").rglob("*.py")])


def module_of(path: Path) -> str:
    """A file's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


@cache
def imported(path: Path) -> frozenset[str]:
    """The modules that a file imports, at its top or inside a function, a name from a package as that package's."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "a relative import"
            assert not node.level, "a relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in whole}
    return frozenset(names)


def level(module: str) -> int:
    """Its place in LEVELS, by the longest name there that it is or is inside of."""
    places = [(len(name), i) for i, names in enumerate(LEVELS) for name in names if f"{module}.".startswith(f"{name}.")]
    assert places, f"{module} has no level"
    length, place = max(places)
    assert module == "mlx_embed" or length > len("mlx_embed"), f"{module} has no level"
    return place


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path: Path) -> None:
    own = module_of(path)
    for name in imported(path):
        if name.split(".")[0] in ("mlx_embed", "custom_kernels"):
            assert name in MODULES, f"{name} is no module"
            # What runs down within custom_kernels has a test beside its own tests.
            depth = 1 if own.startswith("custom_kernels") else 2
            same_folder = own.split(".")[:depth] == name.split(".")[:depth] and len(name.split(".")) >= depth
            assert level(name) > level(own) or same_folder, f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_extras_are_imported_in_their_own_place(path: Path) -> None:
    for name in imported(path):
        place = EXTRAS.get(name.split(".")[0])
        assert place is None or path.relative_to(ROOT).as_posix().startswith(place), name


def test_no_circles_within_a_folder() -> None:
    """Of imports when a module is imported: those inside functions come later, and are held to the levels alone."""
    graph = {module_of(path): {name for name in at_the_top(path) if name in MODULES} for path in FILES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for name in graph[module]:
                # A package's own __init__ has begun before any of its modules: that is no circle.
                if not f"{module}.".startswith(f"{name}."):
                    visit(name, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def at_the_top(path: Path) -> set[str]:
    """What a file imports when it is imported."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in whole}
    return names


def test_nothing_hides_an_import() -> None:
    """`importlib` gets round the tests above: only files that are found by their names need it."""
    users = [str(path.relative_to(ROOT)) for path in FILES if "importlib" in {n.split(".")[0] for n in imported(path)}]
    allowed = {"importlib.metadata", "importlib.util"}
    hidden = [user for user in users if not {n for n in imported(ROOT / user) if n.startswith("importlib")} <= allowed]
    assert hidden == ["mlx_embed/architectures/__init__.py", "mlx_embed/cli.py"]


def test_exported_members() -> None:
    assert sorted(mlx_embed.__all__) == mlx_embed.__all__
    assert set(mlx_embed.__all__) == {
        "BGEM3",
        "CheckpointError",
        "CrossEncoder",
        "EmbeddingModel",
        "EmbeddingModelType",
        "EncodeInfo",
        "M3Vectors",
        "MLXEmbedError",
        "ModelNotFoundError",
        "MultiVectorEncoder",
        "MultiVectors",
        "SparseEncoder",
        "SparseVector",
        "SparseVectors",
        "TruncationWarning",
        "UnsupportedModelError",
        "__version__",
        "convert",
        "search",
    }


def test_import_loads_nothing_heavy() -> None:
    # Beside what numpy brings, of which the last one of Python 3.10 has more.
    script = "import sys, numpy; theirs = set(sys.modules); import mlx_embed; print(*(set(sys.modules) - theirs))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(run.stdout.split())
    assert "mlx.core" in loaded
    assert not loaded & {"huggingface_hub", "transformers", "torch", "tqdm", "requests", "httpx", "multiprocessing"}
    # Each costs every start some milliseconds.
    assert not loaded & {"subprocess", "tempfile", "shutil", "hashlib", "mlx_embed.evaluation", "mlx_embed.destination"}
    assert (
        not {name for name in loaded if name.startswith("mlx_embed.architectures.")}
        - {
            f"mlx_embed.architectures.{name}"
            for name in ("config", "contract", "direction", "expert_layer", "norm", "ops", "token_table")
        }
        - {name for name in loaded if name.startswith("mlx_embed.architectures.ops.")}
    )
