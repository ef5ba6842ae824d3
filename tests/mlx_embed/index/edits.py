"""Random edits of a folder, and what an index of it must then be like: one that is made anew."""

import os
import random
from pathlib import Path
from typing import Any

from mlx_embed import EmbeddingModel
from mlx_embed.index import Index
from mlx_embed.index.chunks import Chunking

FILES = ("x.md", "y.txt", "z.py", "w.rst", "v.html")
NAMES = [f"{folder}{name}" for folder in ("", "a/", "a/b/", "c/") for name in FILES]
WORDS = ["wing", "air", "lift", "drag", "stall", "flow", "heat", "plate", "shock", "soup", "lentil", "violin", "river"]
QUERIES = ["wing in the flow", "lentil soup", "a bridge over the river", "heat", "violin"]


def text(chance: random.Random) -> str:
    """Sometimes the same as another file's."""
    if chance.random() < 0.2:
        return "The same in several files.\n"
    parts = ["# " + chance.choice(WORDS) + "\n\n"]
    for _ in range(chance.choice([0, 1, 2, 6])):
        parts.append(" ".join(chance.choices(WORDS, k=chance.randrange(2, 14))) + chance.choice([". ", ".\n", ".\n\n"]))
    return "".join(parts)


def edit(root: Path, chance: random.Random) -> str:
    """One random change of the folder; what it was."""
    there = sorted(path for path in root.rglob("*") if path.is_file())
    kind = chance.choice(["add", "add", "change", "rename", "swap", "delete", "folder", "touch", "ignore", "binary"])
    target = root / chance.choice(NAMES)
    if kind == "ignore":
        (root / ".gitignore").write_text(chance.choice(["*.rst\n", "c/\n", "", "x.*\n!/a/x.md\n"]))
    elif kind == "folder" and (root / "a").is_dir():
        other = root / chance.choice(["c", "d", "e"])
        if not other.exists():
            (root / "a").rename(other)
    elif kind == "add" or not there:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text(chance))
    else:
        path = chance.choice(there)
        if kind == "change":
            before = path.stat()
            path.write_text(text(chance))
            if chance.random() < 0.5:  # what unpacks an archive sets times back
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif kind == "binary":
            path.write_bytes(chance.choice([b"\0\1", b"\xff\xfe bad", "naïve".encode("latin-1")]))
        elif kind == "rename":
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        elif kind == "swap":
            other = chance.choice(there)
            middle = root / "middle"
            path.rename(middle)
            if other != path:
                other.rename(path)
                middle.rename(other)
            else:
                middle.rename(path)
        elif kind == "delete":
            path.unlink()
        else:
            path.touch()
    return kind


def made(folder: Path, model: EmbeddingModel, root: Path) -> Index:
    """An index of the folder, made anew."""
    index = Index.create(folder, model, chunker=Chunking(24, 4).name)
    index.sync(root)
    return index


def state(index: Index) -> tuple[dict[str, str], dict[str, Any], dict[tuple[str, str, str], float]]:
    """The hash of each file, each chunk with all that is known of it, and the scores of some queries."""
    chunks, scores = {}, {}
    for query in QUERIES:
        for mode in ("vector", "text"):
            for hit in index.search(query, 10_000, mode=mode):  # type: ignore[call-overload]
                place = (hit.path, hit.byte_start, hit.byte_end, hit.line_start, hit.line_end)
                chunks[hit.id] = (*place, hit.text, hit.heading, dict(hit.metadata))
                scores[query, mode, hit.id] = hit.score
    return {path: stat.sha256 for path, stat in index.files().items()}, chunks, scores


def differences(one: Index, other: Index) -> list[str]:
    """How two indexes differ, in what they have and in what they answer; vectors are equal within 1e-5."""
    (files, chunks, scores), (files_2, chunks_2, scores_2) = state(one), state(other)
    found = [f"file {p}: {files.get(p)} {files_2.get(p)}" for p in files | files_2 if files.get(p) != files_2.get(p)]
    found += [
        f"chunk {i}: {chunks.get(i)} {chunks_2.get(i)}" for i in chunks | chunks_2 if chunks.get(i) != chunks_2.get(i)
    ]
    found += [f"score {k}" for k in scores | scores_2 if not abs(scores.get(k, -9) - scores_2.get(k, -9)) < 1e-5]
    return found
