"""A running server in the place of a model, for the command line; it needs nothing but the standard library."""

import json
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mlx_embed.embedding_model import EncodeInfo
from mlx_embed.errors import MLXEmbedError
from mlx_embed.records.ragged import WEIGHT, Rows
from mlx_embed.tokenizer.surrogates import well_formed

# Of a request: a text more never makes its body too large, and several requests share batches.
TEXTS, CHARACTERS = 512, 2**19
# Of one for a vector a token, whose answer is a thousand times as large.
TOKEN_CHARACTERS = 2**15
# Requests under way, so that the server need not wait for the next.
AT_ONCE = 2
SECONDS = 300
# An overloaded server, or one that still loads, is asked again for so long.
PATIENCE_SECONDS = 120
AGAIN = (429, 503)


class _TimedOutError(Exception):
    """The server's time for a request was up before all texts were done."""


@dataclass(frozen=True)
class ServedModel:
    """A model that a server has.

    Attributes:
        url: the server's.
        name: the model's there.
        state: by which it is known to be the same model.
        max_seq_length: tokens at which texts are cut.
        prompts: by name.
        default_prompt_name: of the prompt that goes before texts, where no other is asked for.
        dimension: of its vectors, or of the vocabulary that weights are over.
        kind: what is asked of it: "dense", "sparse" or "multi_vector".
        task: what texts are for, "query" or "document", where the kind is not "dense".
    """

    url: str
    name: str
    state: str
    max_seq_length: int
    prompts: dict[str, str]
    default_prompt_name: str | None
    dimension: int
    kind: str
    task: str | None
    _key: str | None

    def encode(
        self, texts: Sequence[str], *, prompt_name: str | None = None, truncate_dim: int | None = None
    ) -> tuple[np.ndarray, EncodeInfo]:
        """Vectors float32 [N, D], and what is to be said of each text, as of `EmbeddingModel.encode`.

        Raises:
            MLXEmbedError: a server that does not answer, or has another model by now, or refuses the texts.
        """
        options = {"model": self.name, "prompt_name": prompt_name, "truncate_dim": truncate_dim}
        parts, info = self._gathered(texts, options, CHARACTERS, _vectors)
        return np.concatenate(parts), info

    def rows(self, texts: Sequence[str], *, prompt_name: str | None = None) -> tuple[Rows, EncodeInfo]:
        """What there is of the texts of a kind that is not "dense"; otherwise as `encode`."""
        options = {"model": self.name, "prompt_name": prompt_name, "kinds": [self.kind], "task": self.task}
        most = TOKEN_CHARACTERS if self.kind == "multi_vector" else CHARACTERS
        parts, info = self._gathered(texts, options, most, partial(_rows, self.kind, self.dimension))
        lengths, items = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Rows(lengths, items), info

    def _gathered(
        self,
        texts: Sequence[str],
        options: dict[str, Any],
        characters: int,
        read: Callable[[dict[str, Any], int], Any],
    ) -> tuple[list[Any], EncodeInfo]:
        """What is read of each answer, of requests of so many characters, and what is to be said of each text."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = list(threads.map(partial(self._part, options, read), _parts(texts, characters)))
        found = [one for some in answers for one in some]
        counts = np.array([count for _, counts in found for count in counts], dtype=np.int32)
        return [part for part, _ in found], EncodeInfo(counts, counts > self.max_seq_length, np.ones_like(counts))

    def _part(
        self, options: dict[str, Any], read: Callable[[dict[str, Any], int], Any], texts: list[str]
    ) -> list[tuple[Any, list[int]]]:
        """What is read of the answer to a request, or to several of fewer texts, which may be done in time."""
        try:
            answer = _asked(self.url, self._key, {"texts": list(map(well_formed, texts)), **options})
        except _TimedOutError:
            half = len(texts) // 2
            return self._part(options, read, texts[:half]) + self._part(options, read, texts[half:])
        try:
            found, counts = read(answer, len(texts)), list(map(int, answer["token_counts"]))
            same = (answer["state"], answer["max_tokens"]) == (self.state, self.max_seq_length)
        except (KeyError, TypeError, ValueError, Base64Error) as error:
            raise _no_server(self.url, error) from error
        if len(counts) != len(texts):
            raise _no_server(self.url, "vectors that are not of the texts")
        if not same:
            raise MLXEmbedError(f"The server at {self.url} has another model than before under {self.name!r}.")
        return [(found, counts)]


def connect(
    url: str, model: str | None = None, key: str | None = None, kind: str = "dense", task: str | None = None
) -> ServedModel:
    """A model of the server at `url`: of a name that it knows, or without one its first of the kind.

    Raises:
        ValueError: no http or https URL.
        MLXEmbedError: no such server, or it does not have the model.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"The server {url!r} is no URL: it is, for example, http://127.0.0.1:8080.")
    url = url.rstrip("/")
    answer = _asked(url, key, {"texts": [], "model": model, "kinds": [kind], "task": task})
    try:
        return ServedModel(
            url,
            str(answer["model"]),
            str(answer["state"]),
            int(answer["max_tokens"]),
            dict(answer["prompts"]),
            answer["default_prompt_name"],
            int(answer["dimension"]),
            kind,
            task,
            key,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _no_server(url, error) from error


def _vectors(answer: dict[str, Any], count: int) -> np.ndarray:
    vectors = np.frombuffer(b64decode(answer["vectors"]), "<f4").astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError("vectors that are not of the texts")
    return vectors.reshape(count, answer["dimension"])


def _rows(kind: str, dimension: int, answer: dict[str, Any], count: int) -> Rows:
    if not count:
        items = np.zeros(0, WEIGHT) if kind == "sparse" else np.zeros((0, dimension), np.float32)
        return Rows(np.zeros(0, np.int32), items)
    found = answer[kind]
    lengths, values = np.array(found["lengths"], np.int32), np.frombuffer(b64decode(found["values"]), "<f4")
    if kind == "sparse":
        items = np.zeros(len(values), WEIGHT)
        items["index"], items["value"] = np.frombuffer(b64decode(found["indices"]), "<i4"), values
    else:
        items = values.reshape(-1, dimension)
    if len(lengths) != count or lengths.sum() != len(items) or not np.isfinite(values).all():
        raise ValueError("rows that are not of the texts")
    return Rows(lengths, items)


def _parts(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """The texts as requests: one without any, where there are none."""
    part: list[str] = []
    characters = 0
    for text in texts:
        if part and (len(part) == TEXTS or characters + len(text) > most):
            yield part
            part, characters = [], 0
        part.append(text)
        characters += len(text)
    if part or not texts:
        yield part


def _asked(url: str, key: str | None, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request, asked again where the server has no room for it, or still loads.

    Raises:
        _TimedOutError: it has several texts, and the server's time was up.
        MLXEmbedError: it is refused, or nothing of this version answers.
    """
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({} if key is None else {"authorization": f"Bearer {key}"})
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        status, retry_after, answer = _posted(url, content, headers)
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        if status == 200 and isinstance(found, dict):
            return found
        error = found.get("error") if isinstance(found, dict) else None
        error = error if isinstance(error, dict) else {}
        if error.get("code") == "timeout" and len(body["texts"]) > 1:
            raise _TimedOutError
        if status in AGAIN and time.monotonic() < end:
            time.sleep(min(max(float(retry_after) if retry_after.isdigit() else 1.0, 0.1), 10.0))
            continue
        message = error.get("message")
        if not isinstance(message, str):
            raise _no_server(url, f"status {status}")
        raise MLXEmbedError(f"The server at {url} refuses: {message}")


def _posted(url: str, content: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    assert parts.hostname is not None
    connection = kind(parts.hostname, parts.port, timeout=SECONDS)
    try:
        connection.request("POST", f"{parts.path}/v1/encode", content, headers)
        response = connection.getresponse()
        return response.status, response.getheader("retry-after", ""), response.read()
    except (OSError, HTTPException) as error:
        raise MLXEmbedError(
            f"No server answers at {url} ({str(error) or type(error).__name__}): start one with `mlx-embed serve`, or "
            "name none (--server, MLX_EMBED_SERVER), and the model is loaded here."
        ) from error
    finally:
        connection.close()


def _no_server(url: str, found: object) -> MLXEmbedError:
    return MLXEmbedError(
        f"What answers at {url} is no `mlx-embed serve` of this version: it does not know /v1/encode ({found})."
    )
