"""What may import what inside custom_kernels, imports within functions included, and what importing it loads."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import custom_kernels

ROOT = Path(custom_kernels.__file__).parent

# Each folder or file of the package, from the bottom up, and what of the package it may import beside itself.
MAY_IMPORT: dict[str, set[str]] = {
    "cpu": set(),
    "arrays": set(),
    "backends": set(),
    "packed": set(),
    "parameters": set(),
    "ranking": set(),
    "metal": {"arrays", "parameters", "ranking"},
    "cuda": {"arrays", "parameters", "ranking"},
    "choice": {"arrays", "backends", "cuda"},
    "ops": {"arrays", "backends", "choice", "cuda", "metal", "packed", "parameters", "ranking"},
    "transfer": {"backends", "choice", "cuda"},
    "twins": {"choice", "cpu", "parameters"},
    "accelerate": {"choice", "cpu"},
    "__init__": {"choice", "cpu", "ops", "parameters"},
}
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's dotted name."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """The modules of this repository that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                # `from package import name`: the name is a module, or something that the package's face has.
                found.add(whole if whole in MODULES else str(node.module))
    return {name for name in found if name.split(".")[0] in ("custom_kernels", "mlx_embed")}


def part(name: str) -> str:
    """The folder or file of the package that a module belongs to."""
    return [*name.split("."), "__init__"][1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_up(path: Path) -> None:
    place = part(name_of(path))
    for name in imported(path):
        assert name in MODULES, f"{name} is not of this package"
        assert part(name) == place or part(name) in MAY_IMPORT[place], f"{place} imports {name}"


def test_the_table_is_of_what_there_is_and_runs_up_nowhere() -> None:
    assert set(MAY_IMPORT) == {part(name) for name in MODULES}
    order = list(MAY_IMPORT)
    for place, below in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(place) for other in below)


def test_there_is_no_circle() -> None:
    """Importing a module runs the face of its folder first, unless the folder is the importer's own."""
    graph = {}
    for name, path in MODULES.items():
        found = imported(path)
        faces = {f"custom_kernels.{part(other)}" for other in found if part(other) not in ("__init__", part(name))}
        graph[name] = found | faces
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_is_hidden(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not names & {"import_module", "__import__", "exec", "run_module", "run_path"}


def test_only_the_cpu_folder_asks_whether_an_array_is_numpys() -> None:
    for path in FILES:
        if "ndarray" in path.read_text():
            assert path.parent.name == "cpu", path


def test_the_native_kernels_are_independent_of_mlx() -> None:
    for path in (ROOT / "cpu").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "mlx" for name in names), path


def test_exported_members() -> None:
    assert custom_kernels.__all__ == sorted(custom_kernels.__all__)
    assert set(custom_kernels.__all__) == {
        "HeadNorms",
        "LayerWeights",
        "Linear",
        "Rotation",
        "activate",
        "attention",
        "embedding_norm",
        "gated_linear",
        "gather_mean",
        "gelu",
        "gelu_tanh",
        "lay_out_linear",
        "layer_norm",
        "linear",
        "linear_max",
        "max_sim",
        "mean_pool",
        "output_norm",
        "position_ids",
        "rms_norm",
        "rope",
        "short_encoder",
        "top_k_scores",
        "use_kernels",
    }


def test_import_loads_nothing_heavy() -> None:
    script = "import sys, custom_kernels; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT.parent, check=True)
    loaded = set(run.stdout.split())
    assert "mlx.core" in loaded
    assert not loaded & {"mlx_embed", "huggingface_hub", "transformers", "torch", "tqdm", "asyncio", "multiprocessing"}
