"""A job's shards done by the actors of a Ray cluster."""

from collections.abc import Iterator, Sequence
from typing import Any

from mlx_embed.jobs.devices import share_of_threads
from mlx_embed.jobs.job import Work
from mlx_embed.jobs.processes import TRIES, WorkerError
from mlx_embed.jobs.ray_data import missing
from mlx_embed.jobs.shards import Done, Shard


class _Actor:
    """One engine of the cluster."""

    def __init__(self, work: Work) -> None:
        self._do = work()

    def do(self, shard: Shard) -> Done:
        return self._do(shard)


def results(
    work: Work, shards: Sequence[Shard], workers: int, address: str, num_gpus: float = 0
) -> Iterator[tuple[int, Done]]:
    """Each shard's number and what was done, as they are done, by so many actors of the cluster at `address`.

    Every node needs mlx_embed, the model, and the input and output by the same paths. An actor that dies is started
    again, and its shard is done once more.

    Args:
        work: what is done.
        shards: in their order.
        workers: actors, each of one CPU.
        address: "auto", "ray://host:port", or "local" for a cluster of this machine that ends with the job.
        num_gpus: of an actor.

    Raises:
        ImportError: Ray is not installed.
        Exception: what a shard raises.
        WorkerError: two actors died over the same shard.
    """
    try:
        import ray
    except ImportError as error:
        raise missing() from error
    started = not ray.is_initialized()
    if started:
        ray.init(address=address, include_dashboard=False) if address == "local" else ray.init(address=address)
    try:
        nodes = max(sum(node["Alive"] for node in ray.nodes()), 1)
        options = {
            "num_cpus": 1,
            "num_gpus": num_gpus,
            "max_restarts": -1,
            "max_task_retries": TRIES - 1,
            "runtime_env": {"env_vars": share_of_threads(-(-workers // nodes))},
        }
        actors = [ray.remote(_Actor).options(**options).remote(work) for _ in range(min(workers, len(shards)))]
        waiting = iter(shards)
        busy: dict[Any, tuple[Any, Shard]] = {}
        for actor in actors:
            shard = next(waiting)
            busy[actor.do.remote(shard)] = actor, shard
        while busy:
            for ready in ray.wait(list(busy))[0]:
                actor, shard = busy.pop(ready)
                yield shard.number, _result(ray, ready, shard)
                if (following := next(waiting, None)) is not None:
                    busy[actor.do.remote(following)] = actor, following
    finally:
        if started:
            ray.shutdown()


def _result(ray: Any, ready: Any, shard: Shard) -> Done:
    try:
        done: Done = ray.get(ready)
        return done
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except ray.exceptions.RayActorError as error:
        raise WorkerError(f"{TRIES} actors died over {shard.name}: {error}") from error
