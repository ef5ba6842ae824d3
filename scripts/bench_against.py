#!/usr/bin/env python3
"""Time this checkout beside another one, in one run, by what both have in common: `from_pretrained` and `encode`.

    python scripts/bench_against.py OTHER_CHECKOUT [--model FOLDER] [--device cpu] [--dtype float16] [--rounds 15]

Each checkout runs in a process of its own, which loads the model once; in every round both run each row in turn, the
first of them alternating, after a pause of 0.2 s in which threads of the one before stop spinning. Medians of the
rounds, after 3 that do not count. A ratio above 1 means that this checkout is the faster. Both need their native
kernels built (`python setup.py build_ext --inplace`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 3

# What both processes run: a line of JSON in, the seconds of one call out.
CHILD = """
import json, sys, time
from mlx_embed import EmbeddingModel
options = json.loads(sys.stdin.readline())
model = EmbeddingModel.from_pretrained(options.pop("model"), **options)
print(json.dumps(repr(model)), flush=True)
for line in sys.stdin:
    texts, each = json.loads(line)
    start = time.perf_counter()
    if each:
        for text in texts:
            model.encode(text)
    else:
        model.encode(texts)
    print(time.perf_counter() - start, flush=True)
"""


def rows(part: str) -> dict[str, tuple[list[str], bool]]:
    """Texts, by name, and whether each is a call of its own. A word is one token in the models at hand, beside two.

    Only those whose names have `part` in them.
    """
    shapes = [(1, 16), (8, 32), (32, 32), (32, 128), (8, 510)]
    found = {f"{n} x {length}": ([("the " * (length - 2)).strip()] * n, False) for n, length in shapes}
    found["30 queries of 8 to 32 tokens, one at a time"] = (["the " * (6 + n % 25) for n in range(30)], True)
    found["300 texts of 4 to 200 tokens"] = (["the " * (2 + (n * 37) % 197) for n in range(300)], False)
    return {name: row for name, row in found.items() if part in name}


def child(checkout: Path, options: dict[str, Any]) -> "subprocess.Popen[str]":
    """A process with the model loaded."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        cwd=checkout,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(f"{checkout.name}: {ask(process, options)}", flush=True)
    return process


def ask(process: "subprocess.Popen[str]", message: Any) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        sys.exit("A process has ended; see its message above.")
    return json.loads(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--model", default=str(ROOT / "tests/data/tiny-bert"), help="a folder (%(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", default="", help="only those whose names have this in them, such as queries")
    parser.add_argument("--json", type=Path, help="write every figure here")
    arguments = parser.parse_args()
    options = {"model": str(Path(arguments.model).resolve()), "device": arguments.device, "dtype": arguments.dtype}
    options["max_seq_length"] = 64 if "tiny" in options["model"] else 510
    processes = {"this": child(ROOT, dict(options)), "other": child(arguments.other.resolve(), dict(options))}
    seconds: dict[str, dict[str, list[float]]] = {name: {"this": [], "other": []} for name in rows(arguments.rows)}
    for done in range(WARM_UP + arguments.rounds):
        for name, work in rows(arguments.rows).items():
            for side in ("this", "other") if done % 2 else ("other", "this"):
                time.sleep(0.2)
                took = ask(processes[side], work)
                if done >= WARM_UP:
                    seconds[name][side].append(took)
    print(f"{'':46} {'this, ms':>10} {'other, ms':>10} {'ratio':>7}")
    for name, sides in seconds.items():
        this, other = (statistics.median(sides[side]) for side in ("this", "other"))
        print(f"{name:46} {1e3 * this:10.3f} {1e3 * other:10.3f} {other / this:7.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds, indent=1))
    for process in processes.values():
        process.kill()


if __name__ == "__main__":
    main()
