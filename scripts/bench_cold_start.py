#!/usr/bin/env python3
"""Time fresh processes from their start to their end: import, load a model, embed one text.

    python scripts/bench_cold_start.py [--model FOLDER] [--rounds 15] [--onnx FILE]

Sides: this package; ONNX Runtime with `tokenizers` and the same model, exported by PyTorch and with its layers fused;
sentence-transformers; and what of it is `import mlx_embed`, and `import numpy`. What is not installed beside this
package is left out, and named. One process of each side a round, in turns; the first round, which reads the files for
the first time and writes Python's compiled ones, does not count. Figures are medians, and ratios those of one round,
their median.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

OURS = "mlx-embed"
# Takes seconds, so that it is in no more rounds than these.
SLOW, SLOW_ROUNDS = "sentence-transformers", 3
CODE = {
    OURS: "from mlx_embed import EmbeddingModel; EmbeddingModel.from_pretrained({model!r}).encode('x')",
    "import mlx_embed": "import mlx_embed",
    "import numpy": "import numpy",
    "ONNX Runtime": """
import numpy, onnxruntime, tokenizers
tokenizer = tokenizers.Tokenizer.from_file({model!r} + '/tokenizer.json')
tokenizer.no_padding()
tokenizer.enable_truncation(256)
session = onnxruntime.InferenceSession({onnx!r}, providers=['CPUExecutionProvider'])
text = tokenizer.encode('x')
session.run(None, {{'ids': numpy.array([text.ids]), 'mask': numpy.array([text.attention_mask])}})
""",
    SLOW: """
from sentence_transformers import SentenceTransformer
SentenceTransformer({model!r}, device='cpu').encode('x', show_progress_bar=False)
""",
}
NEEDS = {
    "ONNX Runtime": ("onnxruntime",),
    SLOW: ("sentence_transformers",),
}
EXPORT_NEEDS = ("torch", "transformers", "onnx", "onnxruntime")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("MLX_EMBED_TEST_MODEL"), help="folder (all-MiniLM-L6-v2)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--onnx", type=Path, help="the model's fused ONNX file; exported where there is none, and kept")
    options = parser.parse_args()
    from scripts.bench_cpu import minilm

    model = Path(options.model or minilm()).resolve()
    with tempfile.TemporaryDirectory() as work:
        onnx = options.onnx or Path(work) / "fused.onnx"
        left_out = {name: absent for name, modules in NEEDS.items() if (absent := missing(modules))}
        if "ONNX Runtime" not in left_out and not onnx.exists():
            if absent := missing(EXPORT_NEEDS):
                left_out["ONNX Runtime"] = absent
            else:
                export(model, Path(work)).replace(onnx)
        sides = {
            name: code.format(model=str(model), onnx=str(onnx)) for name, code in CODE.items() if name not in left_out
        }
        times = measured(sides, options.rounds)
    for name, absent in left_out.items():
        print(f"left out, without {', '.join(absent)}: {name}")
    report(times)


def missing(modules: Sequence[str]) -> list[str]:
    return [name for name in modules if find_spec(name) is None]


def export(model: Path, work: Path) -> Path:
    """The model, pooled and normalised, as a fused ONNX file."""
    from transformers import AutoModel

    from scripts.bench_cpu import onnx_sessions

    onnx_sessions(AutoModel.from_pretrained(model).eval(), work)
    return work / "fused.onnx"


def measured(sides: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each side's processes, a round of all after another; the slow side is in a few rounds only."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(ROOT)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, code in sides.items():
            if name == SLOW and turn > SLOW_ROUNDS:
                continue
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def report(times: dict[str, list[float]]) -> None:
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {len(times[OURS])} rounds")
    for name, found in times.items():
        ratio = statistics.median(other / ours for other, ours in zip(found, times[OURS], strict=False))
        print(
            f"  {name:24} {statistics.median(found):7.0f} ms  {min(found):.0f}..{max(found):.0f}  this/ours {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
