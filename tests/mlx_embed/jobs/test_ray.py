"""Ray: a dataset's column, and a job's shards, on a cluster of this machine."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import EmbeddingModel, cli
from mlx_embed.jobs import embed, job, ray_job, shards
from mlx_embed.jobs.job import Work
from mlx_embed.jobs.processes import WorkerError
from mlx_embed.jobs.ray_data import Embedder
from tests.conftest import DATA, ROOT
from tests.mlx_embed.jobs.tasks import Slow
from tests.mlx_embed.jobs.test_job import check

ray: Any = pytest.importorskip("ray", reason="Ray, extra ray")
arrow: Any = pytest.importorskip("pyarrow", reason="pyarrow, extra parquet")

MODEL = str(DATA / "tiny-bert")
TEXTS = [f"text {n} " + "wing " * (n % 20) for n in range(230)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture(scope="module")
def alone() -> EmbeddingModel:
    return EmbeddingModel.from_pretrained(MODEL, device="cpu")


def rows(texts: list[str] = TEXTS) -> list[dict[str, Any]]:
    return [{"id": n, "body": text, "other": None if n % 2 else [n]} for n, text in enumerate(texts)]


def test_a_column_is_embedded(alone: EmbeddingModel) -> None:
    dataset = ray.data.from_items(rows(), override_num_blocks=5)
    pool = ray.data.ActorPoolStrategy(size=2)
    found = embed(
        dataset, model=MODEL, column="body", compute=pool, batch_size=30, load={"device": "cpu"}
    ).materialize()
    there = sorted(found.iter_rows(), key=lambda row: row["id"])
    assert [{key: row[key] for key in ("id", "body")} for row in there] == [
        {"id": n, "body": t} for n, t in enumerate(TEXTS)
    ]
    assert np.abs(np.array([row["vector"] for row in there]) - alone.encode(TEXTS)).max() < 1e-5
    vectors = found.take_batch(100, batch_format="numpy")["vector"]
    assert (vectors.dtype, vectors.shape) == (np.float32, (100, 32))


def test_options(alone: EmbeddingModel) -> None:
    dataset = ray.data.from_items(rows(TEXTS[:40]), override_num_blocks=1)
    options: Any = {"prompt": "title: ", "truncate_dim": 8}
    found = embed(dataset, model=MODEL, column="body", output="v", load={"device": "cpu"}, encode=options)
    assert np.abs(found.take_batch(40, batch_format="numpy")["v"] - alone.encode(TEXTS[:40], **options)).max() < 1e-5


def test_the_threads_of_an_actor_are_its_share() -> None:
    class Asked(Embedder):
        def __call__(self, batch: Any) -> Any:
            names = ("MLX_EMBED_NUM_THREADS", "RAYON_NUM_THREADS")
            return arrow.table({name: [os.environ[name]] for name in names})

    from mlx_embed.jobs import devices, ray_data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_data, "Embedder", Asked)
        patch.setattr(devices, "usable_cores", lambda: 6)
        dataset = ray.data.from_items(rows()[:4], override_num_blocks=2)
        found = embed(dataset, model=MODEL, compute=ray.data.ActorPoolStrategy(size=2), load={"device": "cpu"})
        assert found.take_all()[0] == {"MLX_EMBED_NUM_THREADS": "3", "RAYON_NUM_THREADS": "3"}


def test_a_batch_that_is_read_only_is_read_only() -> None:
    """What `zero_copy_batch` needs: the table is of Ray's shared memory, and another may read it."""
    table = arrow.table({"text": TEXTS[:5]})
    before = table.column("text").to_pylist()
    found = Embedder(MODEL, load={"device": "cpu"})(table)
    assert table.column_names == ["text"]
    assert table.column("text").to_pylist() == before
    assert found.column("vector").combine_chunks().to_numpy_ndarray().flags.c_contiguous


@pytest.mark.parametrize(
    ("column", "output", "message"),
    [("missing", "v", "no column 'missing'; there are text"), ("text", "text", "already")],
)
def test_wrong_columns(column: str, output: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Embedder(MODEL, column, output, {"device": "cpu"})(arrow.table({"text": ["a"]}))


def test_a_null_is_named() -> None:
    with pytest.raises(TypeError, match=r"texts\[1\] is a NoneType"):
        Embedder(MODEL, load={"device": "cpu"})(arrow.table({"text": ["a", None]}))


def test_a_job_on_the_cluster(tmp_path: Path, alone: EmbeddingModel) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(json.dumps({"id": n, "text": text}) for n, text in enumerate(TEXTS)))
    command = ["job", path, tmp_path / "out", "--model", MODEL, "--device", "cpu", "--rows", 50, "--workers", 2]
    assert cli.main([*map(str, command), "--ray", "auto"]) == 0
    check(tmp_path / "out", alone.encode(TEXTS), list(range(230)))


def pieces(tmp_path: Path, seconds: float) -> tuple[Any, list[shards.Shard]]:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(json.dumps({"id": n, "text": text}) for n, text in enumerate(TEXTS)))
    work = Slow(Work(str(tmp_path / "out"), MODEL, {"device": "cpu"}), seconds)
    work.load = {"device": "cpu"}  # type: ignore[attr-defined]
    return work, shards.shards(shards.sources([str(path)], None, (), None), 60)


def kill_newest(out: Path) -> None:
    newest = max(out.glob(".begun-*"), key=lambda path: path.stat().st_mtime_ns)
    time.sleep(0.1)
    os.kill(int(newest.name.split("-")[-1]), signal.SIGKILL)


def test_a_killed_actor_costs_its_shard_once_more(tmp_path: Path, alone: EmbeddingModel) -> None:
    work, parts = pieces(tmp_path, 1.5)
    out = tmp_path / "out"
    with shards.opened(out, {}) as manifest:
        killed = False
        for _ in job.run(manifest, parts, work, 2, ray="auto"):
            if not killed:
                killed = True
                kill_newest(out)
        manifest.finish(len(parts))
    check(out, alone.encode(TEXTS), list(range(230)))
    begun = [path.name.split("-")[1] for path in out.glob(".begun-*")]
    assert sorted(begun.count(str(n)) for n in range(4)) == [1, 1, 1, 2]


def test_a_shard_that_kills_is_an_error(tmp_path: Path) -> None:
    _, parts = pieces(tmp_path, 0)
    with pytest.raises(WorkerError, match=r"2 actors died over part-00000\.parquet"):
        list(ray_job.results(Deadly(), parts[:1], 1, "auto"))


def test_what_a_shard_raises_is_raised(tmp_path: Path) -> None:
    work, parts = pieces(tmp_path, 0)
    with pytest.raises(OSError, match="out"):
        list(ray_job.results(work._work, parts, 1, "auto"))  # there is no such folder


class Deadly(Work):
    """Ends its process over any shard."""

    def __init__(self) -> None:
        super().__init__("", "")

    def __call__(self) -> Any:
        return lambda shard: os.kill(os.getpid(), signal.SIGKILL)
