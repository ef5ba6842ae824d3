"""Write a page of results that `compare --json` has written: one machine, or several side by side."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """The results, and where to write the page."""
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="JSON", help="of `compare --json`; others are shown beside the first"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="the page (%(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Write it; 1 where a result says that something does not agree."""
    from mlx_embed.arguments import output_files
    from mlx_embed.measure.html import named_reports, page

    output_files({"--output": options.output}, options.results)
    reports = named_reports(options.results)
    options.output.write_text(page(reports), encoding="utf-8")
    print(f"wrote {options.output}")
    return 1 if any(report.failures for report in reports.values()) else 0
