"""Sound checkpoints of every architecture and layout, and ways to damage one file of them."""

import json
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_embed import convert
from mlx_embed.architectures import ARCHITECTURES
from tests.checkpoints import FAMILIES, RERANKERS, STACKS, decoder, edit, encoder, read, reranker, with_modules

WORDPIECE = ("bert", "distilbert", "mpnet")
# Values of JSON that are of the wrong kind, too large, too small, or odd.
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3,
        7,
        1.5,
        10**9,
        10**30,
        10**400,
        -(10**30),
        1e-30,
        1e30,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "gelu", "\0", "../..", "/etc/passwd", "é" * 50, "\ud800", [], {}, [{}], [None], {"a": 1}, [[]] * 3),
]


def sharded(folder: Path) -> Path:
    """tiny-bert in two shards and an index."""
    encoder("bert", folder)
    tensors = read(folder)
    names = list(tensors)
    for i in range(2):
        mx.save_safetensors(str(folder / f"part-{i}.safetensors"), {name: tensors[name] for name in names[i::2]})
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def with_vocabulary(name: str, folder: Path) -> Path:
    """An encoder with vocab.txt in the place of tokenizer.json."""
    encoder(name, folder)
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(tokens, key=tokens.__getitem__)))
    (folder / "tokenizer.json").unlink()
    kind = {"bert": "Bert", "distilbert": "DistilBert", "mpnet": "MPNet"}[name]
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": f"{kind}Tokenizer"}))
    return edit(folder, vocab_size=len(tokens))


def stored(dtype: str, folder: Path) -> Path:
    """tiny-bert with weights of fewer bits: "float16", "bfloat16", or "8" and "4" bits."""
    bits = {"quantize": int(dtype), "group_size": 32} if dtype.isdecimal() else {"dtype": dtype}
    convert(encoder("bert", folder.with_name(f"{folder.name}-whole")), folder, **bits)  # type: ignore[arg-type]
    return folder


def makers() -> dict[str, Callable[[Path], Path]]:
    """By name, what writes a checkpoint into a folder."""
    packed = [name for name in ARCHITECTURES if name not in FAMILIES and name in (*RERANKERS, "new")]
    plain = {name: name for name in packed if name not in ("xlm-roberta", "camembert", "new")}
    found: dict[str, Callable[[Path], Path]] = {name: partial(encoder, name) for name in plain}
    found |= {f"{name}, as a reranker": partial(reranker, name, 1) for name in RERANKERS}
    found |= {
        f"{stack}, layout {n}": partial(with_modules, stack=STACKS[stack], layout=n) for stack in STACKS for n in (4, 6)
    }
    found |= {f"{name} with vocab.txt": partial(with_vocabulary, name) for name in WORDPIECE}
    found |= {f"stored in {dtype}": partial(stored, dtype) for dtype in ("float16", "bfloat16", "8", "4")}
    found["sharded"] = sharded
    found |= {name: partial(decoder, name) for name in FAMILIES}
    return found


def damage(folder: Path, rng: random.Random) -> str:
    """Damage one file of a checkpoint, and say how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = rng.choice(files)
    way = rng.choice(WAYS)
    if rng.random() < 0.7:
        own = {".json": JSON_WAYS, ".safetensors": WEIGHT_WAYS}.get(path.suffix, WAYS)
        way = rng.choice(own)
    way(path, rng)
    return f"{way.__name__} of {path.relative_to(folder)}"


def emptied(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def removed(path: Path, rng: random.Random) -> None:
    path.unlink()


def linked_to_nothing(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("absent")


def linked_to_itself(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def made_a_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size or 1)])


def lengthened(path: Path, rng: random.Random) -> None:
    with path.open("ab") as file:
        file.write(rng.choice([b"\0", b" ", b"}", rng.randbytes(rng.randrange(1, 100))]))


def exchanged(path: Path, rng: random.Random) -> None:
    """With another file of the checkpoint."""
    other = rng.choice(sorted(other for other in path.parent.iterdir() if other.is_file()))
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def flipped(path: Path, rng: random.Random) -> None:
    """A bit, or several; of weights only in the header, since no reader can know them for wrong."""
    whole = bytearray(path.read_bytes())
    size = 8 + int.from_bytes(whole[:8], "little") if path.suffix == ".safetensors" else len(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 20])):
        if whole:
            whole[rng.randrange(min(size, len(whole)))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(whole))


def filled(path: Path, rng: random.Random) -> None:
    """With random bytes, of the same length."""
    path.write_bytes(rng.randbytes(path.stat().st_size))


def sparse(path: Path, rng: random.Random) -> None:
    """Grown to a size that the disk does not have to hold."""
    os.truncate(path, rng.choice([10**6, 2 * 10**8]))


def value_replaced(path: Path, rng: random.Random) -> None:
    """A value of JSON, at any depth."""
    change_json(path, rng, lambda container, key: container.__setitem__(key, rng.choice(ODD)))


def value_removed(path: Path, rng: random.Random) -> None:
    change_json(path, rng, lambda container, key: container.__delitem__(key))


def value_moved(path: Path, rng: random.Random) -> None:
    """To where another one is."""

    def exchange(container: Any, key: Any) -> None:
        other = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        container[key], container[other] = container[other], container[key]

    change_json(path, rng, exchange)


def number_changed(path: Path, rng: random.Random) -> None:
    def change(container: Any, key: Any) -> None:
        if isinstance(container[key], (int, float)):
            container[key] = rng.choice([-1, 2, 0.5, 1000]) * container[key] + rng.choice([0, 1, -1])

    change_json(path, rng, change)


def change_json(path: Path, rng: random.Random, change: Callable[[Any, Any], None]) -> None:
    """Change a place of a JSON file, or of the header of safetensors."""
    whole = path.read_bytes()
    start, end = 0, len(whole)
    if path.suffix == ".safetensors":
        start, end = 8, 8 + int.from_bytes(whole[:8], "little")
    value = json.loads(whole[start:end])
    container, key = value, None
    while isinstance(container, (dict, list)) and container:
        key = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        inner = container[key]
        if not (isinstance(inner, (dict, list)) and inner) or rng.random() < 0.2:
            change(container, key)
            break
        container = inner
    text = json.dumps(value).encode()
    if path.suffix == ".safetensors":
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[end:])
    else:
        path.write_bytes(text)


def length_changed(path: Path, rng: random.Random) -> None:
    """That of the header."""
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    wrong = rng.choice([length + rng.choice([-4, -1, 1, 4, 8]), 0, 2, 10**7, 99_999_999, 10**18, 2**64 - 1])
    path.write_bytes(max(wrong, 0).to_bytes(8, "little") + whole[8:])


def numbers_not_finite(path: Path, rng: random.Random) -> None:
    """One or more numbers of float32 data."""
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    data = np.frombuffer(whole[start : start + (len(whole) - start) // 4 * 4], np.float32).copy()
    for _ in range(rng.choice([1, 1, 100])):
        data[rng.randrange(len(data))] = rng.choice([np.nan, np.inf, -np.inf])
    path.write_bytes(whole[:start] + data.tobytes() + whole[start + data.nbytes :])


def numbers_zeroed(path: Path, rng: random.Random) -> None:
    whole = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(whole[:8], "little")
    begin = rng.randrange(start, len(whole))
    end = min(len(whole), begin + rng.choice([1, 1000, 10**6]))
    whole[begin:end] = bytes(end - begin)
    path.write_bytes(bytes(whole))


WAYS: list[Callable[[Path, random.Random], None]] = [
    *(
        emptied,
        removed,
        linked_to_nothing,
        linked_to_itself,
        made_a_folder,
        cut,
        lengthened,
        exchanged,
        flipped,
        filled,
    ),
    sparse,
]
JSON_WAYS = [value_replaced, value_replaced, value_replaced, value_removed, value_moved, number_changed, flipped]
WEIGHT_WAYS = [*JSON_WAYS, cut, lengthened, length_changed, length_changed, numbers_not_finite, numbers_zeroed, sparse]


def unaccounted(folder: Path) -> str:
    """The first safetensors file with bytes that no tensor accounts for, in this file's own reading; "" if none."""
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        place = 0
        for begin, end in sorted(entry["data_offsets"] for entry in header.values()):
            if begin != place:
                return path.name
            place = end
        if 8 + length + place != path.stat().st_size:
            return path.name
    return ""


def copied(source: Path, target: Path) -> Path:
    """A copy to damage."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target, symlinks=True))
