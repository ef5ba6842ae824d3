"""`compare --sparse` and `--multi-vector`: every way to compute a model, and one that disagrees."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_embed import cli
from mlx_embed.kinds import MULTI_VECTOR, SPARSE, cosines
from mlx_embed.measure import kinds
from mlx_embed.measure.timing import Timing
from tests.multi_vector import make as make_multi_vector
from tests.sparse import make as make_sparse

TEXTS = ["the wing flow", "heat of the flow", "a query of code"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each work runs once."""

    def once(works: Any) -> dict[str, Timing]:
        return {name: Timing.of([float(work() is not None)]) for name, work in works.items()}

    monkeypatch.setattr(kinds, "interleaved", once)


@pytest.mark.parametrize(
    ("kind", "make", "name"), [(SPARSE, make_sparse, "queries looked up"), (MULTI_VECTOR, make_multi_vector, "pylate")]
)
def test_all_ways_agree(kind: str, make: Any, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, texts = make(tmp_path / "model", name), tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    flag = "--sparse" if kind == SPARSE else "--multi-vector"
    command = ["compare", flag, "--model", str(folder), "--texts", str(texts), "--json", str(tmp_path / "out.json")]
    assert cli.main(command) == 0
    shown, found = capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())
    assert "Verdict: all ways agree." in shown
    assert found["sides"][0]["name"] == kinds.BASE
    for side in found["sides"]:
        assert side["name"] in shown
        assert set(side["seconds"]) == {"a query", "1 document", "10 documents", "50 documents"}
    assert found["failures"] == []


def test_a_way_that_disagrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = kinds._load

    def turned(*arguments: Any) -> dict[str, Any]:
        sides = load(*arguments)
        side = type(sides[kinds.BASE]).from_pretrained(tmp_path, device="cpu", max_seq_length=4)
        return sides | {"cut": side}

    monkeypatch.setattr(kinds, "_load", turned)
    report = kinds.compare_kind(SPARSE, make_sparse(tmp_path, "bert"), TEXTS)
    assert [failure.partition(":")[0] for failure in report.failures] == ["cut"]
    assert "FAILED: cut" in report.as_text()
    with pytest.raises(ValueError, match="at least one text"):
        kinds.compare_kind(SPARSE, tmp_path, [])


def test_cosines() -> None:
    a = np.array([[3, 4], [0, 0], [1, 0]], dtype=np.float32)
    b = np.array([[6, 8], [0, 0], [0, 1]], dtype=np.float32)
    assert cosines(a, b).tolist() == pytest.approx([1, 1, 0])
