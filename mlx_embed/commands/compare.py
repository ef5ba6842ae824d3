"""Compare MLX's CPU stream, the native kernels and the accelerator: vectors, latency, each op."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mlx_embed.checkpoint import DEFAULT_MODEL
from mlx_embed.engine.device import DTYPES


def add(parser: argparse.ArgumentParser) -> None:
    """The model, the texts, and where to write the figures."""
    parser.add_argument("--model", default=DEFAULT_MODEL.value, help="folder, repository id or alias (%(default)s)")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="texts to embed, one a line")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the accelerator's side")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--sparse", action="store_true", help="the model is a sparse one")
    kind.add_argument("--multi-vector", action="store_true", help="the model gives a vector a token (ColBERT)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page of them")
    parser.add_argument(
        "--baseline",
        type=Path,
        action="append",
        default=[],
        metavar="JSON",
        help="of an earlier run or another machine, beside which the page shows this one; repeatable",
    )


def run(options: argparse.Namespace) -> int:
    """Print the report; 1 where something does not agree."""
    from mlx_embed.arguments import output_files
    from mlx_embed.engine.device import accelerator, switch_tf32_off
    from mlx_embed.measure.compare import DEFAULT_TEXTS, compare
    from mlx_embed.measure.html import named_reports, page
    from mlx_embed.measure.report import to_json
    from mlx_embed.measure.text import as_text
    from mlx_embed.pages.charts import require
    from mlx_embed.records import reading

    if options.baseline and options.html is None:
        raise ValueError("--baseline is shown on the page: name that with --html.")
    if options.sparse or options.multi_vector:
        if options.html is not None:
            raise ValueError("A page is made of models that give a vector a text: leave --html and --baseline out.")
        if options.dtype is not None and accelerator() is None:
            raise ValueError("--dtype is of the accelerator's side, and there is none here: leave it out.")
    before = named_reports(options.baseline)
    if options.html is not None:
        require()
    texts: Sequence[str] = DEFAULT_TEXTS
    if options.texts is not None:
        lines = reading.records(reading.source(str(options.texts), "lines"))
        texts = [record.text for record in lines if record.text.strip()]
    output_files({"--json": options.json, "--html": options.html}, [options.texts] if options.texts else [])
    switch_tf32_off()  # an M5 would else not agree with the CPU in float32
    if options.sparse or options.multi_vector:
        from mlx_embed.kinds import MULTI_VECTOR, SPARSE
        from mlx_embed.measure.kinds import compare_kind

        found = compare_kind(SPARSE if options.sparse else MULTI_VECTOR, options.model, texts, options.dtype)
        print(found.as_text())
        if options.json is not None:
            options.json.write_text(found.to_json() + "\n", encoding="utf-8")
        return 1 if found.failures else 0
    report = compare(options.model, texts, options.dtype)
    print(as_text(report))
    if options.json is not None:
        options.json.write_text(to_json(report) + "\n", encoding="utf-8")
    if options.html is not None:
        own = "this run" if before else report.subject.model
        options.html.write_text(page({**before, own: report}), encoding="utf-8")
        print(f"The same as a page: {options.html}")
    return 1 if report.failures else 0
