"""The report for a person: what it states, what it leaves out, and that its numbers are those of the rows."""

from dataclasses import replace

import pytest

from mlx_embed.measure import text
from mlx_embed.measure.report import Filling, Launches, OpRow, Report, Side, Subject
from mlx_embed.measure.text import aligned, as_text
from mlx_embed.measure.timing import PLAN, Timing
from tests.mlx_embed.measure.test_report import REPORT, op_row, steady

SIDES = (Side("mlx cpu", "reference", "cpu: A", "float32", "1"), Side("native cpu", "native", "cpu: A", "float32", "7"))
SUBJECT = Subject("MiniLM", 384, 20, (9, 12.83, 18), SIDES, None, "AVX-512", "Linux", "0.32.4", 4, 0.25)
LAUNCHED = OpRow("rope", "rows", "kernel, cuda", "float32", steady(200e-6), steady(15e-6), 2e-7)


def lines(report: Report) -> list[list[str]]:
    return [line.split() for line in as_text(report).splitlines()]


def test_what_was_run_is_stated() -> None:
    printed = " ".join(as_text(replace(REPORT, subject=SUBJECT, seconds=41.7)).split())
    assert "20 different ones of 9 to 18 tokens, 12.8 on average" in printed
    assert "MiniLM, 384 dimensions" in printed
    assert "0.2 before the run, on 4 cores" in printed
    assert ["native", "cpu", "native", "cpu:", "A", "float32", "7"] in lines(replace(REPORT, subject=SUBJECT))
    assert f"up to {PLAN.rounds} rounds" in printed
    assert f"a pause of {PLAN.pause} s" in printed
    assert "errors are against numpy in float64" in printed
    assert "errors are against MLX's ops on its CPU stream in float32" in printed
    assert "Unit vectors against mlx cpu" in printed
    assert "The run took 42 s." in printed


def test_rows() -> None:
    found = lines(REPORT)
    # 2 ms between 1.9 and 2.1, five rounds, 500 texts a second, five times as fast.
    assert ["1", "native", "cpu", "2.00", "10%", "5", "500", "5.00"] in found
    assert ["100", "cuda", "10.00", "10%", "5", "10,000", "100"] in found
    assert ["100", "native", "cpu", "200", "105", "10%", "5", "1.90"] in found
    assert ["cuda", "float16", "2.0e-04", "0.9999900"] in found


def test_the_verdict_is_the_last_line_and_failures_stand_before_it() -> None:
    assert as_text(REPORT).splitlines()[-1] == f"Verdict: {REPORT.verdict}"
    wrong = replace(REPORT, ops=(op_row(1.0),), left_out=("some rows",))
    *_, left_out, failed, verdict = as_text(wrong).splitlines()
    assert left_out == "Left out: some rows."
    assert failed == f"FAILED: {wrong.failures[0]}."
    assert verdict == f"Verdict: {wrong.verdict}"


def test_what_did_not_run_has_no_table() -> None:
    printed = as_text(REPORT)
    assert "Kernel launches" not in printed
    assert "Primitives" not in printed
    assert "launch, us" not in printed
    assert "not run" not in printed
    assert "Ops:" not in as_text(replace(REPORT, ops=()))


def test_launches_and_primitives() -> None:
    counts = Launches("this package's", 42, {}), Launches("MLX's own ops", 95, {})
    found = lines(replace(REPORT, launches=counts, primitives={"mlx cpu": 815}, few=3))
    assert ["this", "package's", "42"] in found
    assert ["MLX's", "own", "ops", "95"] in found
    assert ["815"] in found


def test_a_gpus_rows_say_what_is_timed() -> None:
    report = replace(REPORT, subject=replace(SUBJECT, accelerator="cuda"), ops=(LAUNCHED, op_row(0.0)))
    assert "call, us  launch, us" in as_text(report)
    printed = " ".join(as_text(report).split())
    assert "A call is timed until its result is there; a launch as one of many" in printed
    found = lines(report)
    assert ["rope", "rows", "kernel,", "cuda", "200", "15.00", "10%", "2.0e-07"] in found
    assert ["rope", "some", "rows", "native", "cpu", "1,000", "-", "10%", "0.00"] in found


def test_why_a_compiled_graph_is_slow_on_a_cpu() -> None:
    assert "is slow" not in as_text(REPORT)
    printed = " ".join(as_text(replace(REPORT, filling=Filling(10, 133, 192, 180, 4480))).split())
    assert "10 texts of 133 tokens become 192 tokens" in printed
    assert "4,480 places instead of 180" in printed


@pytest.mark.parametrize(
    ("value", "cell"),
    [(None, "-"), (0.0, "0.00"), (0.00123, "1.2e-03"), (12.345, "12.35"), (1234.5, "1,234"), (7, "7"), ("a", "a")],
)
def test_cells(value: object, cell: str) -> None:
    assert text._cell(value) == cell


def test_aligned() -> None:
    assert aligned([["a", "b"], ["long", "c"]]) == "a     b\nlong  c"


def test_a_spread_is_a_share_of_the_median() -> None:
    row = replace(REPORT.latency[0], time=Timing(0.010, 0.008, 0.013, 4))
    assert ["1", "mlx", "cpu", "10.00", "50%", "4", "100", "1.00"] in lines(replace(REPORT, latency=(row,)))
