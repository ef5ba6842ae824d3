"""Counts and times for Prometheus, under text-embeddings-inference's names where they mean the same."""

import re
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest

from mlx_embed.serve.limits import Places
from mlx_embed.serve.models import Models, Served
from mlx_embed.serve.queue import BatchReport, Job

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SIZES = tuple(2**n for n in range(17))
FILLS = tuple(n / 10 for n in range(1, 11))
_CREATED = re.compile(rb"^(?:# \w+ |)\w+_created[ {].*\n", re.MULTILINE)
_TOTAL = re.compile(rb"^((?:# \w+ |)\w+)_total\b", re.MULTILINE)


class Metrics:
    """What a server counts; one that stands alone, so that a process may have several."""

    def __init__(self, models: Models, places: Places) -> None:
        self._models, self._places = models, places
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("te_request_count", "Requests", ["method"], registry=registry)
        self._successes = Counter("te_request_success", "Requests that were answered", ["method"], registry=registry)
        self._failures = Counter("te_request_failure", "Requests that failed, by cause", ["err"], registry=registry)
        self._duration = _seconds("te_request_duration", "From request to answer", registry, "method")
        self._tokenizing = _seconds("te_request_tokenization_duration", "Tokenizing, of a request", registry)
        self._queue = _seconds("te_request_queue_duration", "Waiting for a batch, of a request", registry)
        self._inference = _seconds("te_request_inference_duration", "In batches, of a request", registry)
        self._length = Histogram("te_request_input_length", "Tokens of a text", buckets=SIZES, registry=registry)
        self._batch_size = Histogram(
            "te_batch_next_size", "Texts of a batch", ["model"], buckets=SIZES, registry=registry
        )
        self._batch_tokens = Histogram(
            "te_batch_next_tokens", "Tokens of a batch", ["model"], buckets=SIZES, registry=registry
        )
        self._fill = Histogram(
            "mlx_embed_batch_fill", "Of the tokens that a batch may have", ["model"], buckets=FILLS, registry=registry
        )
        self._batch_seconds = _seconds("mlx_embed_batch_duration", "Of a batch", registry, "model")
        self._tokens = Counter("mlx_embed_tokens", "Tokens computed", ["model"], registry=registry)
        registry.register(self)

    def watch(self, model: Served) -> None:
        """Count a model's batches."""
        size, tokens, fill, seconds, total = (
            metric.labels(model.id)
            for metric in (self._batch_size, self._batch_tokens, self._fill, self._batch_seconds, self._tokens)
        )

        def batch(report: BatchReport) -> None:
            size.observe(report.texts)
            tokens.observe(report.tokens)
            fill.observe(report.tokens / model.budget)
            seconds.observe(report.seconds)
            total.inc(report.tokens)

        model.queue.watch = batch

    def answered(self, method: str, seconds: float, jobs: list[Job[Any]]) -> None:
        """Count a request that was answered."""
        self._requests.labels(method).inc()
        self._successes.labels(method).inc()
        self._duration.labels(method).observe(seconds)
        for job in jobs:
            self._tokenizing.observe(job.tokenizing)
            self._queue.observe(job.queued)
            self._inference.observe(job.inferring)
            for count in job.counts:
                self._length.observe(count)

    def failed(self, method: str, cause: str) -> None:
        """Count a request that was not."""
        self._requests.labels(method).inc()
        self._failures.labels(cause).inc()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What is read when it is asked for."""
        size = GaugeMetricFamily("te_queue_size", "Requests that wait or run", labels=["model"])
        tokens = GaugeMetricFamily("mlx_embed_waiting_tokens", "Tokens that wait", labels=["model"])
        for model in list(self._models.loaded.values()):
            size.add_metric([model.id], model.queue.jobs)
            tokens.add_metric([model.id], model.queue.waiting)
        yield size
        yield tokens
        yield GaugeMetricFamily("mlx_embed_requests_running", "Requests being worked on", value=self._places.taken)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        # The client library puts _total behind a counter's name, and adds when it was created; TEI's have neither.
        return _TOTAL.sub(rb"\1", _CREATED.sub(b"", generate_latest(self._registry)))


def _seconds(name: str, about: str, registry: CollectorRegistry, *labels: str) -> Histogram:
    return Histogram(name, f"{about}, in seconds", labels, buckets=SECONDS, registry=registry)
