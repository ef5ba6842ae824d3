"""What the environment asks of the CPU: a number of threads, and an instruction set."""

import os

from custom_kernels.cpu.cores import usable_cores

# What MLX_EMBED_CPU_ISA may ask for, the most first, and the library's name for what float32 then runs on. With "vnni"
# there are products of bytes too, with "bf16" also those of bfloat16, and only without a limit AMX's tiles. "neon_dot"
# is without Arm's products of blocks.
INSTRUCTION_SETS = {
    "avx512_bf16": "AVX-512",
    "avx512_vnni": "AVX-512",
    "avx512": "AVX-512",
    "avx2_vnni": "AVX2",
    "avx2": "AVX2",
    "neon_dot": "NEON",
    "baseline": None,
}


def threads() -> int:
    """MLX_EMBED_NUM_THREADS, or else OMP_NUM_THREADS, or else every core that this process may use.

    Raises:
        ValueError: MLX_EMBED_NUM_THREADS is no number of at least 1. OMP_NUM_THREADS is not this package's own, and is
            passed over where it is something else.
    """
    wanted = os.environ.get("MLX_EMBED_NUM_THREADS", "")
    if wanted:
        if not _is_count(wanted):
            raise ValueError(
                f"MLX_EMBED_NUM_THREADS is {wanted!r}; set it to a number of at least 1, or not at all for every core."
            )
        return int(wanted)
    outermost = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list has one for each level
    return int(outermost) if _is_count(outermost) else usable_cores()


def blas_threads() -> int | None:
    """As `threads`; None where OpenBLAS is to go by its own variable, or where the setting is wrong.

    What is wrong is said when a model is loaded, not when the package is imported.
    """
    if os.environ.get("OPENBLAS_NUM_THREADS") and not os.environ.get("MLX_EMBED_NUM_THREADS"):
        return None
    try:
        return threads()
    except ValueError:
        return None


def instruction_set() -> str:
    """MLX_EMBED_CPU_ISA: one of INSTRUCTION_SETS, or "" for the best that the processor has.

    Raises:
        ValueError: anything else.
    """
    wanted = os.environ.get("MLX_EMBED_CPU_ISA", "")
    if wanted and wanted not in INSTRUCTION_SETS:
        raise ValueError(
            f"MLX_EMBED_CPU_ISA is {wanted!r}; set it to one of {', '.join(INSTRUCTION_SETS)}, or not at all for the "
            "best that the processor has."
        )
    return wanted


def check() -> None:
    """Raise ValueError where one of them is wrong."""
    threads()
    instruction_set()


def _is_count(text: str) -> bool:
    return len(text) < 10 and text.isascii() and text.isdecimal() and int(text) >= 1
