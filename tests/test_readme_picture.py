"""README's picture has the figures of docs/benchmarks.md, and its alternative text has them too."""

import re
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = run_path(str(ROOT / "scripts/readme_picture.py"))
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")


def test_the_picture_is_of_the_figures() -> None:
    run = subprocess.run([sys.executable, "scripts/readme_picture.py", "--check"], cwd=ROOT, check=False)
    assert run.returncode == 0, "run scripts/readme_picture.py"


def test_other_figures_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SCRIPT["figures"](BENCHMARKS)
    picture = tmp_path / "speed.svg"
    monkeypatch.setattr(sys, "argv", ["readme_picture.py", "--check"])
    main = SCRIPT["main"]
    monkeypatch.setitem(main.__globals__, "PICTURE", picture)
    text = (ROOT / "docs/speed.svg").read_text(encoding="utf-8")
    label = SCRIPT["label"]("32 x 128", "native int8", found["32 x 128"]["native int8"])
    picture.write_text(text)
    assert main() == 0
    picture.write_text(text.replace(f'"{label}"', '"another"'))
    assert main() == 1
    picture.write_text(text.replace(f'"{label}"', f'"{label}" aria-label="stale 1 ms"'))
    assert main() == 1


def test_the_alternative_text_says_what_the_bars_say() -> None:
    (alternative,) = re.findall(r"!\[([^\]]*)\]\(docs/speed.svg\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    said = [float(number) for number in re.findall(r"\d+\.\d+|\d{2,}(?= |,|;|\.)", alternative.split("tokens:", 1)[1])]
    for engines in SCRIPT["figures"](BENCHMARKS).values():
        for milliseconds in engines.values():
            assert any(abs(number / milliseconds - 1) < 0.02 for number in said), milliseconds


def test_it_is_small_and_stands_alone() -> None:
    text = (ROOT / "docs/speed.svg").read_text(encoding="utf-8")
    assert len(text) < 20_000
    assert "prefers-color-scheme:dark" in text
    assert set(re.findall(r"https?://[^\"']*", text)) == {"http://www.w3.org/2000/svg"}
