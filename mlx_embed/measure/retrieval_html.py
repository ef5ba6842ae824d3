"""An evaluation as text and as a page: quality against speed, and the queries on which the contenders differ."""

from collections.abc import Iterator
from html import escape
from typing import Any

from mlx_embed.measure import text
from mlx_embed.measure.retrieval import DEPTH, METRICS, NDCG, SAMPLES, WARM, Answer, Disputed, Evaluation
from mlx_embed.pages.charts import COLOURS, SHAPES, WIDE, Spec, figure, logarithmic
from mlx_embed.pages.page import document, paragraph, resource, section, table

STYLE = """
.query { background: var(--card); border-radius: 8px; padding: 0.75rem 1rem; margin: 0.9rem 0; break-inside: avoid; }
.query h3 { margin: 0 0 0.5rem; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 0.75rem 1.5rem; }
.answers ol { margin: 0.25rem 0 0; padding-left: 1.4rem; font-size: 0.9rem; }
.answers li { margin: 0.2rem 0; }
.relevant { color: var(--good); }
.relevant::before { content: "✓ "; font-weight: bold; }
"""


def as_text(evaluation: Evaluation) -> str:
    """The table of contenders, and how it was made."""
    return "\n".join([_subject(evaluation), "", text.table(_rows(evaluation)), "", *_method(evaluation)])


def page(evaluation: Evaluation) -> str:
    """A whole HTML page.

    Raises:
        ImportError: the extra `report` is not installed.
    """
    best = max(evaluation.contenders, key=lambda contender: contender.scores[NDCG].mean)
    several = len(evaluation.contenders) > 1
    verdict = f"The highest nDCG@10 is that of {best.name}: {best.scores[NDCG]}."
    if several and best.change is not None:
        sure = best.change.low > 0
        verdict += (
            f" Query by query that is {best.change.mean:+.3f} ({best.change.low:+.3f} to {best.change.high:+.3f}) to "
            f"{evaluation.contenders[0].name}{'' if sure else ', which chance may explain'}."
        )
    body = [
        "<header><h1>How well do they find?</h1>",
        paragraph(_subject(evaluation), "soft"),
        f"<div class='verdict good'>{escape(verdict)}</div></header><main>",
        section(
            "Quality against speed",
            figure(
                "nDCG@10 of each contender against the documents that it embeds in a second",
                lambda width: quality_and_speed(evaluation, "documents_per_second", "documents a second", width),
                "Upwards is better, to the right faster. A bar is what holds 95 of 100 samples of as many queries.",
            ),
            figure(
                "nDCG@10 of each contender against the queries that it answers in a second",
                lambda width: quality_and_speed(evaluation, "queries_per_second", "queries a second", width),
                f"A query is embedded, compared with all documents, and its first {DEPTH} are reranked where "
                "there is a reranker.",
            ),
            table(_rows(evaluation)),
        ),
        section(
            "The queries that differ most",
            *(_disputed(query, evaluation) for query in evaluation.disputed),
        ),
        section("How each figure was made", *(paragraph(sentence) for sentence in _method(evaluation))),
        "</main>",
    ]
    return document("How well do they find?", "\n".join(body), style=STYLE, script=resource("marks.js"))


def quality_and_speed(evaluation: Evaluation, field: str, title: str, width: int) -> Spec:
    """Each contender as a point: a speed against nDCG@10 with its interval."""
    values: list[dict[str, Any]] = []
    for contender in evaluation.contenders:
        score, speed = contender.scores[NDCG], getattr(contender, field)
        values.append(
            {
                "name": contender.name,
                "speed": speed,
                "mean": score.mean,
                "low": score.low,
                "high": score.high,
                "says": f"{contender.name}: nDCG@10 {score}, {speed:,.1f} {title}",
            }
        )
    names = [value["name"] for value in values]
    legend = {"title": None, "columns": 3 if width >= WIDE else 1}
    colour = {"field": "name", "type": "nominal", "scale": {"domain": names, "range": COLOURS[1:]}, "legend": legend}
    shape = {"field": "name", "scale": {"domain": names, "range": SHAPES}, "legend": legend}
    x = logarithmic("speed", title, (value["speed"] for value in values))
    y = {"type": "quantitative", "title": NDCG, "scale": {"zero": False}}
    bars = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour}
    points = {"x": x, "y": {**y, "field": "mean"}, "color": colour, "shape": shape, "description": {"field": "says"}}
    return {
        "data": {"values": values},
        "width": width,
        "height": 260,
        "layer": [
            {"mark": {"type": "rule", "aria": False}, "encoding": bars},
            {"mark": {"type": "point", "size": 110}, "encoding": points},
        ],
    }


def _rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for contender in evaluation.contenders:
        yield {
            "model": contender.name,
            "dtype": contender.dtype,
            **{name: str(contender.scores[name]) for name in METRICS},
            **(
                {}
                if len(evaluation.contenders) == 1
                else {
                    "change of nDCG": "–"
                    if contender.change is None
                    else f"{contender.change.mean:+.3f} ({contender.change.low:+.3f} to {contender.change.high:+.3f})"
                }
            ),
            "documents/s": contender.documents_per_second,
            "queries/s": contender.queries_per_second,
            "bytes a vector": contender.bytes,
        }


def _subject(evaluation: Evaluation) -> str:
    return (
        f"{evaluation.documents:,} documents and {evaluation.queries:,} queries of {evaluation.folder}, "
        f"{len(evaluation.judged):,} of which have a relevant document and count."
    )


def _method(evaluation: Evaluation) -> list[str]:
    gains = "gains as they were judged" if evaluation.graded else "documents being relevant or not"
    devices = ", ".join(dict.fromkeys(contender.device for contender in evaluation.contenders))
    return [
        f"nDCG@10 has {gains}; recall is the share of a query's relevant documents; MRR@10 is 0 where the first ten "
        f"have none. In brackets: what holds 95 of 100 of {SAMPLES:,} samples of as many queries, by the percentile "
        "bootstrap; a change is of the same queries, to the first contender.",
        f"Documents a second are embedded from strings in one call, after {WARM} to warm up; one pass each. Vectors "
        "are float32.",
        f"{devices}; {evaluation.platform}; a load of {evaluation.load:.1f} on {evaluation.cores} cores before. It "
        f"took {evaluation.seconds:.0f} s.",
    ]


def _disputed(query: Disputed, evaluation: Evaluation) -> str:
    answers = "".join(_answer(answer, evaluation) for answer in query.answers)
    count = f"{query.relevant} relevant document{'' if query.relevant == 1 else 's'}"
    return (
        f"<article class='query'><h3>{escape(query.text)}</h3><p class='soft'>{escape(query.query)}, {count}</p>"
        f"<div class='answers'>{answers}</div></article>"
    )


def _answer(answer: Answer, evaluation: Evaluation) -> str:
    found = "".join(
        f"<li{' class=relevant' if relevant else ''}>{escape(evaluation.beginnings[document])} "
        f"<span class='soft'>[{escape(document)}]</span></li>"
        for document, relevant in answer.documents
    )
    return f"<div><b>{escape(answer.contender)}</b>: {answer.ndcg:.3f}<ol>{found}</ol></div>"
