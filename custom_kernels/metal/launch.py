"""What the launches of Metal kernels share: a kernel's source, and how many threads a row takes."""

from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

# Headers of kernels: simdgroup_matrix; a run of elements that is read or written at once, which need only be aligned as
# an element is; and how it is read, from the constant address space too, where MLX puts arrays of fewer than 8.
MATRICES = "#include <metal_simdgroup_matrix>\n"
ELEMENTS = "template <typename T, int N>\nstruct Elements {\n  T at[N];\n};\n"
READS = "".join(
    f"template <typename R, typename T>\nMETAL_FUNC R run_at(const {space} T* first) {{\n"
    f"  return *(const {space} R*)first;\n}}\n"
    for space in ("device", "constant")
)
RUNS = ELEMENTS + READS


@cache
def kernel_source(name: str) -> str:
    """The body of kernel `name` as it ships, from `<name>.metal`."""
    return Path(__file__).with_name(f"{name}.metal").read_text(encoding="ascii")


@cache
def shared_source(name: str) -> str:
    """What kernels share, for their header, from `shared/<name>.metal`."""
    return (Path(__file__).parent / "shared" / f"{name}.metal").read_text(encoding="ascii")


@cache
def kernel(name: str, *input_names: str, header: str = "") -> Any:
    """Kernel `name` as `mx.fast.metal_kernel` has it, with one output, "out"."""
    return mx.fast.metal_kernel(
        name=name,
        input_names=list(input_names),
        output_names=["out"],
        source=kernel_source(name),
        header=header,
    )


def row_threads(width: int) -> tuple[int, int]:
    """Elements a thread keeps and threads a row, for rows up to 8192 wide."""
    reads = 4 if width <= 2048 else 16
    return reads, round_up(-(-width // reads), 32)


def round_up(n: int, multiple: int) -> int:
    """The least multiple that is not below n."""
    return -(-n // multiple) * multiple
