"""What a report says is wrong, and its verdict, on reports made up here."""

import json
from dataclasses import replace

import pytest

from mlx_embed.measure.report import (
    Agreement,
    Batching,
    Latency,
    OpRow,
    Report,
    Subject,
    to_json,
)
from mlx_embed.measure.timing import Timing

SUBJECT = Subject("a model", 384, 20, (9, 12.8, 18), (), None, "AVX-512", "Linux", "0.32", 4, 1.0)
NAN = float("nan")


def steady(seconds: float, rounds: int = 5) -> Timing:
    return Timing(seconds, 0.95 * seconds, 1.05 * seconds, rounds)


def op_row(error: float, dtype: str = "float32") -> OpRow:
    return OpRow("rope", "some rows", "native cpu", dtype, steady(1e-3), None, error)


REPORT = Report(
    SUBJECT,
    agreement=(Agreement("native cpu", "float32", 2e-7, 1.0), Agreement("cuda", "float16", 2e-4, 0.99999)),
    latency=(
        Latency(1, "mlx cpu", steady(0.010), 1.0),
        Latency(1, "native cpu", steady(0.002), 5.0),
        Latency(1, "cuda", steady(0.004), 2.5),
        Latency(100, "mlx cpu", steady(1.0), 1.0),
        Latency(100, "native cpu", steady(0.1), 10.0),
        Latency(100, "cuda", steady(0.01), 100.0),
    ),
    batching=(Batching(100, "native cpu", steady(0.2), steady(0.105)),),
    layer_norm=(op_row(2e-6),),
    ops=(op_row(5e-7), op_row(5e-3, "float16")),
)


def test_nothing_is_wrong() -> None:
    assert REPORT.failures == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"agreement": (Agreement("native cpu", "float32", 2e-7, 0.99999),)}, "native cpu: the lowest cosine"),
        ({"agreement": (Agreement("native cpu", "float32", 2e-7, NAN),)}, "native cpu: the lowest cosine"),
        ({"agreement": (Agreement("native cpu", "float32", 2e-5, 1.0),)}, "native cpu: vectors differ by 2.00e-05"),
        ({"agreement": (Agreement("native cpu", "float32", NAN, 1.0),)}, "native cpu: vectors differ"),
        ({"agreement": (Agreement("cuda", "float16", 2e-2, 0.9998),)}, "cuda: the lowest cosine is 0.9998"),
        ({"agreement": (Agreement("cuda", "bfloat16", 2e-2, 0.998),)}, "cuda: the lowest cosine is 0.998"),
        ({"layer_norm": (op_row(2e-4),)}, "LayerNorm of some rows by native cpu is 2.00e-04 off float64"),
        ({"layer_norm": (op_row(NAN),)}, "LayerNorm of some rows by native cpu"),
        ({"ops": (op_row(2e-4),)}, "rope of some rows by native cpu is 2.00e-04 off MLX's ops"),
        ({"ops": (op_row(2e-2, "float16"),)}, "rope of some rows by native cpu is 2.00e-02"),
        (
            {"batching": (Batching(100, "native cpu", steady(0.2), steady(0.2)),)},
            "native cpu: 100 texts took 100.00 ms",
        ),
        ({"batching": (Batching(100, "native cpu", steady(0.2), steady(0.05)),)}, "and 50.00 ms in that of batching"),
    ],
)
def test_what_is_wrong(change: dict[str, object], says: str) -> None:
    failures = replace(REPORT, **change).failures  # type: ignore[arg-type]
    assert len(failures) == 1
    assert says in failures[0]


def test_another_number_of_texts_or_side_contradicts_nothing() -> None:
    rows = Batching(10, "native cpu", steady(9.0), steady(9.0)), Batching(100, "metal", steady(9.0), steady(9.0))
    assert replace(REPORT, batching=rows).failures == []


def test_the_verdict_names_the_fastest_for_one_text_and_for_many() -> None:
    assert REPORT.verdict == (
        "The fastest here: for 1 text native cpu, 5.0 times as fast as mlx cpu; for 100 texts cuda, 100.0 times as "
        "fast as mlx cpu. The vectors agree within 2e-04."
    )


@pytest.mark.parametrize(("load", "busy"), [(0.0, False), (2.0, False), (2.1, True), (30.0, True)])
def test_on_a_busy_machine_the_verdict_says_so(load: float, busy: bool) -> None:
    verdict = replace(REPORT, subject=replace(SUBJECT, load=load)).verdict
    warning = f"The machine was busy, with a load of {load:.1f} on 4 cores, so times say little. "
    assert verdict == (warning if busy else "") + REPORT.verdict


def test_where_the_base_is_the_fastest_the_verdict_says_so() -> None:
    slow = [replace(row, speed_up=0.9) for row in REPORT.latency[4:]]
    assert replace(REPORT, latency=(*REPORT.latency[:4], *slow)).verdict.startswith(
        "The fastest here: for 1 text native cpu, 5.0 times as fast as mlx cpu; for 100 texts mlx cpu. The vectors"
    )


def test_where_nothing_is_faster_the_verdict_says_so() -> None:
    rows = Latency(1, "mlx cpu", steady(0.01), 1.0), Latency(1, "native cpu", steady(0.01), 1.02)
    assert "Nothing here is faster than mlx cpu" in replace(REPORT, latency=rows, batching=()).verdict


def test_sizes_for_which_the_base_was_too_slow_have_no_say_in_the_verdict() -> None:
    rows = (*REPORT.latency, Latency(500, "native cpu", steady(0.5), None))
    assert replace(REPORT, latency=rows).verdict == REPORT.verdict


def test_wrong_numbers_are_the_verdict() -> None:
    wrong = replace(REPORT, ops=(op_row(1.0),), batching=(Batching(100, "native cpu", steady(1), steady(1)),))
    assert wrong.verdict == "Something computes wrong numbers here: see what failed."
    doubtful = replace(wrong, ops=())
    assert "times contradict each other" in doubtful.verdict


def test_json_has_the_medians_the_failures_and_the_verdict() -> None:
    found = json.loads(to_json(replace(REPORT, ops=(op_row(1.0),))))
    assert found["latency"][1]["time"] == pytest.approx(
        {"seconds": 0.002, "least": 0.0019, "most": 0.0021, "rounds": 5}
    )
    assert len(found["failures"]) == 1
    assert found["verdict"].startswith("Something computes wrong numbers")


def test_the_gain_of_a_batch_and_bytes_over_time() -> None:
    assert Batching(10, "native cpu", steady(0.3), steady(0.1)).gain == pytest.approx(3)
    row = OpRow("rope", "", "kernel, cuda", "float32", steady(1e-3), steady(1e-5), 0.0, 10**6)
    assert row.gigabytes_per_second == pytest.approx(100)
    assert replace(row, chain=None).gigabytes_per_second == pytest.approx(1)
    assert replace(row, bytes=None).gigabytes_per_second is None
