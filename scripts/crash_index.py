#!/usr/bin/env python3
"""Kill whoever writes to an index at random moments, and see that nothing is lost and nothing is broken.

    python scripts/crash_index.py [--kills 100] [--full-disks 0] [--steps 60] [--seed N] [--row-dtype int8]

A child adds, upserts, replaces and removes files, deletes and compacts, step after step, and says when a step is done.
It is killed with SIGKILL. Then the index is checked as a whole, and must hold exactly what the steps that were done
left there, or these and the one in which it was killed. Another child goes on from there, is killed too, and so on to
the end, where every search must find what it finds in an index that nobody interrupted.

With --full-disks, which needs the right to mount a file system, the steps are done on a disk that is full again and
again: each time the index must hold what it held before the step, which is done once more when there is some space.

Prints the seed, and how many kills or full disks came in each kind of step. Exits with 1 where anything differs.
"""

import argparse
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from mlx_embed import EmbeddingModel  # noqa: E402
from mlx_embed.errors import StoreError  # noqa: E402
from mlx_embed.index import Chunk, FileStat, Index  # noqa: E402

WORDS = ("wing", "stall", "heat", "soup", "flow", "layer", "shock", "lentil", "plate", "nose", "cone", "drag", "jet")
# What an index holds: of each id the text and its metadata.
State = dict[str, tuple[str, dict[str, Any]]]
Step = tuple[str, Callable[[Index], object], Callable[[State], None]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full-disks", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--row-dtype", default="int8", choices=("float32", "float16", "int8"))
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    model = EmbeddingModel.from_pretrained(ROOT / "tests" / "data" / "tiny-bert", device="cpu")
    for what, wanted, one_run in (("kills", options.kills, killed_run), ("full disks", options.full_disks, full_run)):
        counts: Counter[str] = Counter()
        rounds = 0
        while counts.total() < wanted:
            run_seed = f"{seed}-{rounds}"
            with tempfile.TemporaryDirectory() as work:
                failed = one_run(model, Path(work), run_seed, options, counts)
            if failed:
                print(f"FAILED in run {run_seed}: {failed}")
                return 1
            rounds += 1
        if rounds:
            shown = ", ".join(f"{count} in {name}" for name, count in sorted(counts.items()))
            print(f"{counts.total()} {what} in {rounds} runs: {shown}. Nothing was lost, and nothing else was there.")
    return 0


def full_run(model: EmbeddingModel, work: Path, seed: str, options: argparse.Namespace, full: Counter[str]) -> str:
    """All the steps on a disk that grows each time that it is full; what went wrong, or ""."""
    steps = made_up(random.Random(seed), options.steps)
    state: State = {}
    disk, kib = work / "disk", 512
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(disk)], check=True)
    try:
        with Index.create(work / "whole", model, row_dtype=options.row_dtype) as whole:
            for _, act, _ in steps:
                act(whole)
        index = Index.create(disk / "index", model, row_dtype=options.row_dtype)
        for number, (kind, act, change) in enumerate(steps):
            while True:
                try:
                    act(index)
                    break
                except StoreError as error:
                    if "No space is left" not in str(error) and "may be full" not in str(error):
                        return f"step {number} on a full disk says {error}"
                full[kind] += 1
                for again in (index, Index.open(disk / "index", model, read_only=True)):
                    if (found := contents(again)) != state:
                        return f"after step {number} on a full disk the index holds {difference(found, state)}"
                again.check()
                again.close()
                kib += kib // 8
                subprocess.run(["mount", "-o", f"remount,size={kib}k", str(disk)], check=True)
            change(state)
        index.close()
        shutil.copytree(disk / "index", work / "killed")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return compare(work, model)


def killed_run(model: EmbeddingModel, work: Path, seed: str, options: argparse.Namespace, kills: Counter[str]) -> str:
    """All the steps, with kills; what went wrong, or ""."""
    steps = made_up(random.Random(seed), options.steps)
    states: list[State] = [{}]
    for _, _, change in steps:
        states.append(dict(states[-1]))
        change(states[-1])
    start = time.perf_counter()
    with Index.create(work / "whole", model, row_dtype=options.row_dtype) as whole:
        for _, act, _ in steps:
            act(whole)
    seconds = time.perf_counter() - start
    Index.create(work / "killed", model, row_dtype=options.row_dtype).close()
    dice = random.Random(f"{seed} kills")
    done, longest = 0, seconds / 4
    while done < len(steps):
        acknowledged = writer(work / "killed", model, steps, done, dice.uniform(0, longest))
        with Index.open(work / "killed", model) as index:
            index.check()
            found = contents(index)
            if found == states[acknowledged]:
                after = acknowledged
            elif acknowledged < len(steps) and found == states[acknowledged + 1]:
                after = acknowledged + 1
            else:
                return f"after step {acknowledged} the index holds {difference(found, states[acknowledged])}"
            if len(index) != len(found):
                return f"{len(found)} of {len(index)} texts are found by their words"
        if acknowledged < len(steps):
            kills[steps[acknowledged][0]] += 1
        # One step may take longer than a quarter of them all does elsewhere: it gets more time until it is done.
        longest = seconds / 4 if after > done else 1.2 * longest
        done = after
    return compare(work, model)


def writer(folder: Path, model: EmbeddingModel, steps: list[Step], first: int, seconds: float) -> int:
    """Let a child do the steps from `first` on and kill it after so long; how many steps in all are done."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reads)
            with Index.open(folder, model) as index:
                os.write(writes, b"r")
                for _, act, _ in steps[first:]:
                    act(index)
                    os.write(writes, b".")
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    os.close(writes)
    try:
        said = os.read(reads, 1)  # it has opened the index
        end = time.monotonic() + seconds
        while said and (left := end - time.monotonic()) > 0:
            if select.select([reads], [], [], left)[0]:
                part = os.read(reads, 4096)
                if not part:
                    break
                said += part
        os.kill(child, signal.SIGKILL)
        while part := os.read(reads, 4096):
            said += part
    finally:
        os.close(reads)
        _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a writer that nobody killed has failed")
    return first + said.count(b".")


def made_up(dice: random.Random, count: int) -> list[Step]:
    """Steps that change an index, and what they change."""
    made: list[Step] = []
    fresh = 0
    for i in range(count):
        kind = dice.choices(["add", "upsert", "delete", "replace_files", "remove_file", "compact"], [4, 3, 3, 4, 1, 2])[
            0
        ]
        if kind == "add":
            ids = [f"n{fresh + j}" for j in range(dice.randint(1, 400))]
            fresh += len(ids)
            made.append(adding("add", ids, dice, i))
        elif kind == "upsert":
            ids = sorted({f"n{dice.randrange(fresh + 5)}" for _ in range(dice.randint(1, 60))})
            fresh = max(fresh, 1 + max(int(name[1:]) for name in ids))
            made.append(adding("upsert", ids, dice, i))
        elif kind == "delete":
            made.append(deleting([f"n{dice.randrange(fresh + 1)}" for _ in range(dice.randint(1, 150))]))
        elif kind == "replace_files":
            made.append(replacing({f"f{dice.randrange(9)}.md": dice.randint(0, 30) for _ in range(3)}, dice, i))
        elif kind == "remove_file":
            made.append(removing(f"f{dice.randrange(9)}.md"))
        else:
            made.append(("compact", lambda index: index.compact(), lambda state: None))
    return made


def texts_of(dice: random.Random, count: int) -> list[str]:
    return [" ".join(dice.choices(WORDS, k=dice.randint(1, 12))) for _ in range(count)]


def adding(kind: str, ids: list[str], dice: random.Random, step: int) -> Step:
    texts = texts_of(dice, len(ids))
    metadata = [{"step": step, "even": number % 2 == 0} for number in range(len(ids))]
    vectors = [vector_of(text) for text in texts]

    def act(index: Index) -> None:
        getattr(index, kind)(ids, texts, metadata, vectors=vectors)

    return kind, act, lambda state: state.update(zip(ids, zip(texts, metadata, strict=True), strict=True))


def deleting(ids: list[str]) -> Step:
    def change(state: State) -> None:
        for name in ids:
            state.pop(name, None)

    return "delete", lambda index: index.delete(ids), change


def removing(path: str) -> Step:
    def change(state: State) -> None:
        for name in [name for name in state if name.startswith(f"{path}#")]:
            del state[name]

    return "remove_file", lambda index: index.remove_files([path]), change


def replacing(files: dict[str, int], dice: random.Random, step: int) -> Step:
    given = []
    for path, count in files.items():
        chunks = [
            Chunk(text, path, i, i + 1, i + 1, i + 1, ("H",), i, {"step": step})
            for i, text in enumerate(texts_of(dice, count))
        ]
        given.append((path, FileStat(count, step, "0" * 64), chunks))

    def change(state: State) -> None:
        for path, _, chunks in given:
            removing(path)[2](state)
            state.update({chunk.id: (chunk.text, {"step": step}) for chunk in chunks})

    return "replace_files", lambda index: index.replace_files(given), change


def vector_of(text: str) -> np.ndarray:
    """A vector that depends on the text alone, so that no model has to run."""
    return np.random.default_rng([ord(letter) for letter in text]).standard_normal(32).astype(np.float32)


def contents(index: Index) -> State:
    found = index.search(" ".join(WORDS), 1_000_000, mode="text")
    return {hit.id: (hit.text, dict(hit.metadata)) for hit in found}


def difference(found: State, wanted: State) -> str:
    lost, more = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    return f"{len(lost)} texts less {lost[:3]}, {len(more)} more {more[:3]}, {len(other)} others {other[:3]}"


def compare(work: Path, model: EmbeddingModel) -> str:
    """Whether every search finds the same in the index that was killed and in the one that was not."""
    with Index.open(work / "whole", model, read_only=True) as whole, Index.open(work / "killed", model) as killed:
        whole.check()
        killed.check()
        if len(whole) != len(killed) or whole.files() != killed.files():
            return "there are other texts or files than without kills"
        for query in [*WORDS, "the flow over a wing"]:
            for mode in ("vector", "text", "hybrid"):
                for condition in (None, {"even": True}, {"path": "f*.md", "step": {">=": 3}}):
                    one = whole.search(query, 20, mode=mode, filter=condition)
                    if one != killed.search(query, 20, mode=mode, filter=condition):
                        return f"{query!r} finds something else in mode {mode} with {condition}"
        killed.compact()
        killed.check()
    shutil.rmtree(work / "killed")
    return ""


if __name__ == "__main__":
    sys.exit(main())
