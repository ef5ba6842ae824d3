"""Axes of charts: round numbers, and few."""

import pytest

from mlx_embed.pages.charts import logarithmic


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        ([0.3, 700.0], [1, 10, 100]),
        ([3.0, 60.0], [5, 10, 20, 50]),
        ([71.6, 127.0], [72, 130]),
        ([1.0], [1.0]),
        ([], [1.0]),
    ],
)
def test_marks_of_a_logarithmic_axis(values: list[float], marks: list[float]) -> None:
    found = logarithmic("ms", "milliseconds", values)
    assert list(dict.fromkeys(found["axis"]["values"])) == pytest.approx(marks)
    low, high = found["scale"]["domain"]
    assert all(low < value < high for value in values)
