#!/usr/bin/env python3
"""Exact search over many vectors, beside LanceDB's, usearch's and Chroma's (which is not exact), in one run.

    python scripts/bench_index.py build WORK [--rows 100000] [--dimension 384] [--row-dtype float32 float16 int8]
    python scripts/bench_index.py measure WORK [--rows 100000] [--queries 225] [--json FILE]

Both take --peers lance chroma usearch, which are those that are installed. `build` writes the same made-up vectors of
length 1 into an index for each row dtype, a LanceDB table and a Chroma collection; `measure` searches them. Every
figure is a median after a warm-up, in milliseconds: one query at a time, the ten best with their texts; all queries as
one batch, for each query; in a process of its own the opening of the store, with that its first answer, and all from
the start of the process to its end; these are medians of FIRST processes, with files that the system has in memory.
"equal" is the share of queries whose ten best, in order, are those of float64, and "recall" the share of these that is
found at all: made-up vectors have no neighbourhoods, which is hard on Chroma's graph. "own" is the memory of the
process beside mapped files, in MiB, that came with searching.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

# What is measured is imported where it is needed, so that no process pays for another's.
ROW_DTYPES = ("float32", "float16", "int8")
WORDS = ("wing", "stall", "heat", "soup", "flow", "layer", "shock", "lentil", "plate", "nose", "cone", "drag", "jet")
K = 10
STEP = 20_000
PEERS = ("lance", "chroma", "usearch")
FIRST = 3
Find = Callable[[np.ndarray], list[list[int]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("build", "measure", "first"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=225)
    parser.add_argument("--row-dtype", nargs="+", default=ROW_DTYPES, choices=ROW_DTYPES)
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    options = parser.parse_args()
    folder = options.work / f"{options.rows}x{options.dimension}"
    if options.what == "first":
        print(json.dumps(first_answer(options.work, options.dimension)))
    elif options.what == "build":
        build(folder, options)
    else:
        figures = measure(folder, options)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def vectors(count: int, dimension: int) -> Iterator[np.ndarray]:
    """Made-up vectors of length 1, STEP at a time."""
    for start in range(0, count, STEP):
        found = np.random.default_rng(start).standard_normal((min(STEP, count - start), dimension), dtype=np.float32)
        yield found / np.linalg.norm(found, axis=1, keepdims=True)


def questions(count: int, dimension: int) -> np.ndarray:
    found = np.random.default_rng(1).standard_normal((count, dimension), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def build(folder: Path, options: argparse.Namespace) -> None:
    from mlx_embed.index import Chunk, rows
    from mlx_embed.index.statement import Statement
    from mlx_embed.index.store import Store

    folder.mkdir(parents=True, exist_ok=True)
    for row_dtype in options.row_dtype:
        if (folder / row_dtype).exists():
            continue
        words = Statement("none", "", "", "0" * 64, options.dimension, 1, "cosine", "", "", row_dtype, "")
        store = Store.create(folder / row_dtype, words)
        start, number = time.perf_counter(), 0
        for some in vectors(options.rows, options.dimension):
            texts = texts_from(number, len(some))
            entries = [
                rows.entry(f"{number + i:08d}", Chunk(text, "", 0, 0, 0, 0, metadata={"year": i % 50}))
                for i, text in enumerate(texts)
            ]
            with store.writing() as transaction:
                transaction.put(entries, some)
            number += len(some)
        store.close()
        print(f"{row_dtype}: {number} texts in {time.perf_counter() - start:.1f} s", flush=True)
    for name, peer in (("lance", build_lance), ("chroma", build_chroma)):
        if name in options.peers and not (folder / name).exists():
            start = time.perf_counter()
            try:
                about = peer(folder / name, options)
            except ImportError as error:
                print(f"{error.name} is not installed")
                continue
            except BaseException:
                shutil.rmtree(folder / name, ignore_errors=True)
                raise
            print(f"{about}: {options.rows} texts in {time.perf_counter() - start:.1f} s", flush=True)


def texts_from(number: int, count: int) -> list[str]:
    return [f"{WORDS[i % 13]} {WORDS[i % 11]} {i}" for i in range(number, number + count)]


def build_lance(folder: Path, options: argparse.Namespace) -> str:
    import lancedb
    import pyarrow as arrow

    kind = arrow.list_(arrow.float32(), options.dimension)
    schema = arrow.schema([("id", arrow.int64()), ("text", arrow.string()), ("vector", kind)])

    def batches() -> Iterator[Any]:
        number = 0
        for some in vectors(options.rows, options.dimension):
            ids = list(range(number, number + len(some)))
            flat = arrow.FixedSizeListArray.from_arrays(arrow.array(some.reshape(-1)), options.dimension)
            columns = {"id": ids, "text": texts_from(number, len(ids)), "vector": flat}
            yield arrow.RecordBatch.from_pydict(columns, schema=schema)
            number += len(some)

    lancedb.connect(str(folder)).create_table("t", batches(), schema=schema)
    return f"LanceDB {lancedb.__version__}"


def build_chroma(folder: Path, options: argparse.Namespace) -> str:
    import chromadb

    client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
    made = client.create_collection("texts", configuration={"hnsw": {"space": "ip"}}, embedding_function=None)
    number = 0
    for some in vectors(options.rows, options.dimension):
        for start in range(0, len(some), 5000):
            part = some[start : start + 5000]
            names = [str(number + i) for i in range(len(part))]
            made.add(ids=names, embeddings=part, documents=texts_from(number, len(part)))
            number += len(part)
    return f"Chroma {chromadb.__version__}"


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from custom_kernels import cpu
    from mlx_embed.index import search, vector_search
    from mlx_embed.index.store import Store

    asked = questions(options.queries, options.dimension)
    wanted = truth(asked, options.rows, options.dimension)
    print(f"{options.rows} x {options.dimension}, {options.queries} queries, {cpu.num_threads()} threads")
    print(f"{'':24} one query  of a batch  opened  first answer  process  equal  recall    own", flush=True)
    figures: dict[str, Any] = {}
    for row_dtype in options.row_dtype:
        if not (folder / row_dtype).exists():
            continue
        first = first_answers(folder / row_dtype, options.dimension)
        store = Store(folder / row_dtype, read_only=True)

        def find(queries: np.ndarray, store: Store = store, row_dtype: str = row_dtype) -> list[list[int]]:
            with store.reading() as (connection, view):
                snapshot = search.Snapshot(connection, view, row_dtype, store.database)
                hits = search.search(snapshot, [""] * len(queries), queries, K, "vector", None)
            return [[int(hit.id) for hit in found] for found in hits]

        figures[f"index, {row_dtype}"] = shown(f"index, {row_dtype}", find, asked, wanted, first)
        with store.reading() as (_, view):
            alone = timed(partial(vector_search.search, view, asked[:1], K, row_dtype), 20)
        figures[f"index, {row_dtype}"]["scan"] = alone
        store.close()
        print(f"{'  without texts':24} {alone:9.2f}", flush=True)
    if "lance" in options.peers and (folder / "lance").exists():
        figures["LanceDB"] = lance(folder / "lance", asked, wanted)
    if "chroma" in options.peers and (folder / "chroma").exists():
        figures["Chroma"] = chroma(folder / "chroma", asked, wanted)
    if "usearch" in options.peers:
        figures["usearch"] = usearch(asked, wanted, options)
    return figures


def lance(folder: Path, asked: np.ndarray, wanted: list[list[int]]) -> dict[str, float]:
    import lancedb

    first, find = first_answers(folder, asked.shape[1]), opened_lance(folder)
    return shown(f"LanceDB {lancedb.__version__}, exact", find, asked[:20], wanted[:20], first)


def opened_lance(folder: Path) -> Find:
    import lancedb

    table = lancedb.connect(str(folder)).open_table("t")

    def find(queries: np.ndarray) -> list[list[int]]:
        found = []
        for query in queries:
            answer = table.search(query).distance_type("dot").limit(K).select(["id", "text"]).to_arrow()
            found.append(answer["id"].to_pylist())
        return found

    return find


def chroma(folder: Path, asked: np.ndarray, wanted: list[list[int]]) -> dict[str, float]:
    import chromadb

    first, find = first_answers(folder, asked.shape[1]), opened_chroma(folder)
    return shown(f"Chroma {chromadb.__version__}, HNSW", find, asked, wanted, first)


def opened_chroma(folder: Path) -> Find:
    import chromadb

    client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
    there = client.get_collection("texts", embedding_function=None)

    def find(queries: np.ndarray) -> list[list[int]]:
        answer = there.query(query_embeddings=queries, n_results=K, include=["documents", "distances"])
        return [[int(name) for name in row] for row in answer["ids"]]

    return find


def usearch(asked: np.ndarray, wanted: list[list[int]], options: argparse.Namespace) -> dict[str, float]:
    try:
        from usearch.index import MetricKind
        from usearch.index import search as exact
    except ImportError:
        return {}
    from custom_kernels import cpu

    whole = np.concatenate(list(vectors(options.rows, options.dimension)))

    def find(queries: np.ndarray) -> list[list[int]]:
        given = queries if len(queries) > 1 else queries[0]
        found = exact(whole, given, K, MetricKind.IP, exact=True, threads=cpu.num_threads())
        keys = np.asarray(found.keys).reshape(len(queries), -1)
        return [row.tolist() for row in keys]

    return shown("usearch, exact", find, asked, wanted, None)


def shown(
    name: str,
    find: Find,
    asked: np.ndarray,
    wanted: list[list[int]],
    first: dict[str, float] | None,
) -> dict[str, float]:
    """One line, printed."""
    before = own_memory()
    find(asked[:1])
    seconds = []
    for query in asked[:30]:
        start = time.perf_counter()
        find(query[None])
        seconds.append(time.perf_counter() - start)
    find(asked)
    batch = timed(lambda: find(asked), 3) / len(asked)
    found = find(asked)
    row = {
        "one query": 1e3 * statistics.median(seconds),
        "of a batch": batch,
        "opened": first["opened"] if first else float("nan"),
        "first answer": first["milliseconds"] if first else float("nan"),
        "process": first["process"] if first else float("nan"),
        "equal": sum(a == b for a, b in zip(found, wanted, strict=True)) / len(wanted),
        "recall": sum(len({*a} & {*b}) for a, b in zip(found, wanted, strict=True)) / (K * len(wanted)),
        "own": own_memory() - before,
    }
    widths = {"one query": "9.2f", "of a batch": "11.3f", "opened": "7.1f", "first answer": "13.1f", "process": "8.0f"}
    widths |= {"equal": "6.3f", "recall": "7.3f"}
    line = " ".join(f"{row[column]:{width}}" for column, width in widths.items())
    print(f"{name:24} {line} {row['own']:6.1f}", flush=True)
    return row


def first_answers(folder: Path, dimension: int) -> dict[str, float]:
    """`first_answer` in processes of their own: medians, with how long the whole process took."""
    found = []
    for _ in range(FIRST):
        start = time.perf_counter()
        command = [sys.executable, __file__, "first", str(folder), "--dimension", str(dimension)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found.append({**json.loads(said), "process": 1e3 * (time.perf_counter() - start)})
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def first_answer(folder: Path, dimension: int) -> dict[str, float]:
    """From the opening of a store to its first answer, in a process that has not touched it."""
    query = questions(1, dimension)
    peers = {"lance": ("lancedb", opened_lance), "chroma": ("chromadb", opened_chroma)}
    if folder.name in peers:
        name, opening = peers[folder.name]
        import_module(name)
        start = time.perf_counter()
        find = opening(folder)
        opened = time.perf_counter()
        assert find(query)[0]
        return {"opened": 1e3 * (opened - start), "milliseconds": 1e3 * (time.perf_counter() - start)}
    from mlx_embed.index import search
    from mlx_embed.index.store import Store

    start = time.perf_counter()
    store = Store(folder, read_only=True)
    with store.reading() as (connection, view):
        opened = time.perf_counter()
        snapshot = search.Snapshot(connection, view, store.statement.row_dtype, store.database)
        assert search.search(snapshot, [""], query, K, "vector", None)[0]
    return {"opened": 1e3 * (opened - start), "milliseconds": 1e3 * (time.perf_counter() - start)}


def truth(asked: np.ndarray, count: int, dimension: int) -> list[list[int]]:
    """The ten best of each query, in float64, of equal ones the first first."""
    scores, places = np.zeros((len(asked), 0)), np.zeros((len(asked), 0), dtype=np.int64)
    queries, start = asked.astype(np.float64), 0
    for some in vectors(count, dimension):
        scores = np.concatenate([scores, queries @ some.astype(np.float64).T], axis=1)
        places = np.concatenate([places, np.tile(np.arange(start, start + len(some)), (len(asked), 1))], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        scores, places = np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)
        start += len(some)
    return places.tolist()


def timed(run: Callable[[], object], times: int) -> float:
    """The median of some runs, in milliseconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def own_memory() -> float:
    """The memory of this process beside mapped files, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    sys.exit(main())
