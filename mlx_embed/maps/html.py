"""A map as a page: points that WebGL draws, their texts, and columns to colour them by."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_embed.maps.clusters import Labels
from mlx_embed.maps.corpus import Corpus
from mlx_embed.pages.page import document

# Characters of a text that the page shows.
SHOWN = 240
# Values of a column that have a colour of their own; the others share one.
OWN_COLOUR = 16


@dataclass(frozen=True)
class Map:
    """A corpus laid out.

    Attributes:
        corpus: the texts.
        places: [N, 2] float32 in 0..1.
        labels: [N], the cluster of each text, -1 for none.
        words: of each cluster.
    """

    corpus: Corpus
    places: npt.NDArray[np.float32]
    labels: Labels
    words: Sequence[Sequence[str]]

    def name(self, label: int) -> str:
        """Of a cluster: its words."""
        if label < 0:
            return "between clusters"
        return ", ".join(self.words[label]) or f"cluster {label + 1}"


def page(found: Map) -> str:
    """A whole HTML page."""
    name = found.corpus.name
    columns = [_column("cluster", [found.name(label) for label in found.labels.tolist()])]
    columns += [_column(title, values) for title, values in found.corpus.columns.items()]
    data = {
        "places": _packed(np.clip(np.rint(found.places * 65535), 0, 65535).astype("<u2")),
        "texts": [shown(text) for text in found.corpus.texts],
        "ids": list(found.corpus.ids),
        "columns": columns,
        "labels": _labels(found),
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    squeezed = base64.b64encode(gzip.compress(text, 6, mtime=0)).decode()
    options = "".join(f"<option value='{n}'>{escape(column['name'])}</option>" for n, column in enumerate(columns))
    body = _here("map.html").replace("{{name}}", escape(name)).replace("{{options}}", options)
    body = body.replace("{{count}}", f"{len(found.places):,}").replace("{{clusters}}", f"{len(found.words):,}")
    return document(
        f"Map of {name}",
        body,
        style=_here("map.css"),
        script=_here("map.js"),
        data=f"<script type='text/plain' id='data'>{squeezed}</script>\n",
    )


def shown(text: str) -> str:
    """A text in one line, cut where it is long."""
    line = " ".join(text[: 4 * SHOWN].split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _column(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A column as the page has it: numbers from the least to the largest, or a few values and a rest."""
    numbers = [value for value in values if isinstance(value, (int, float))]
    if numbers and len(numbers) == sum(value is not None for value in values) and len(set(numbers)) > OWN_COLOUR:
        low, high = float(min(numbers)), float(max(numbers))
        scale = (high - low) or 1.0
        cells = [65535 if value is None else round(65534 * (value - low) / scale) for value in values]
        return {"name": name, "low": low, "high": high, "cells": _packed(np.array(cells, dtype="<u2"))}
    spelled = ["none" if value is None else str(value) for value in values]
    counts = Counter(spelled)
    # 65,536 values are as many as a cell can tell apart: those behind share the last one.
    ordered = [value for value, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:65535]
    place = {value: number for number, value in enumerate(ordered)}
    cells = [place.get(value, 65535) for value in spelled]
    sizes = [counts[value] for value in ordered]
    return {"name": name, "values": ordered, "sizes": sizes, "cells": _packed(np.array(cells, dtype="<u2"))}


def _labels(found: Map) -> list[dict[str, Any]]:
    """The words of each cluster, at the median of its places; the largest first, as clusters are."""
    entries = []
    for label in range(len(found.words)):
        inside = found.places[found.labels == label]
        x, y = np.median(inside, axis=0).tolist()
        entries.append({"x": round(x, 4), "y": round(y, 4), "size": len(inside), "name": found.name(label)})
    return entries


def _packed(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _here(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
