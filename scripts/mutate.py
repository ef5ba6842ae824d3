"""Plant small mistakes one by one in a copy of the repository, and say which of them the tests catch.

    python scripts/mutate.py                    all of mutations.txt, some seconds each
    python scripts/mutate.py similarity rank    those whose file or description holds one of these words
    python scripts/mutate.py --check            only whether the code still has what each of them replaces

A mistake is a few lines of mutations.txt: what it is, the file and its tests, the old text and the new one. Where a
library of C++ is concerned, it is built again, which takes a minute. Run it where PyTorch is not installed: there the
tests have golden values alone. It ends with 1 where a mistake survives.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("mutations.txt")
# A mistake may make a test wait for ever; no set of tests here takes a quarter of this.
SECONDS = 300
# How pytest ends where all tests are skipped, as without a package that they need: nothing is caught then.
NOTHING_RUN = 5
NATIVE = (".inl", ".cpp", ".h")


@dataclass(frozen=True)
class Mutation:
    """A mistake.

    Attributes:
        about: what it is, in a few words.
        file: where it is made.
        tests: what is run, as pytest takes it.
        old: the text that is replaced, which the file has once.
        new: what takes its place.
    """

    about: str
    file: str
    tests: tuple[str, ...]
    old: str
    new: str

    def planted(self, root: Path) -> str | None:
        """The file's text with the mistake in it; None where the file does not have the old text once."""
        path = root / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        return text.replace(self.old, self.new) if text.count(self.old) == 1 else None


def read(path: Path) -> list[Mutation]:
    """The mistakes of a list: blocks of `# about`, `file: tests`, `- old` and `+ new` lines, parted by blank lines."""
    found = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = block.strip("\n").split("\n")
        about, place, rest = lines[0], lines[1:2], lines[2:]
        if not place:  # a heading
            continue
        file, _, tests = place[0].partition(":")
        old, new = ("\n".join(line[2:] for line in rest if line[:1] == sign) for sign in "-+")
        if about[:1] != "#" or not tests or not old or any(line[:1] not in ("-", "+") for line in rest):
            raise SystemExit(f"{path} has a block that is no mutation:\n{block}")
        found.append(Mutation(about.removeprefix("# "), file, tuple(tests.split()), old, new))
    return found


def libraries(root: Path) -> list[Path]:
    """What is built of C++."""
    return sorted((root / "custom_kernels" / "cpu").glob("*.so"))


def copied(target: Path) -> Path:
    """What git knows of and what is built, in a folder of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in [*filter(None, listed), *(str(path.relative_to(ROOT)) for path in libraries(ROOT))]:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def build(root: Path) -> bool:
    """Build the libraries of C++; whether it worked."""
    for library in libraries(root):
        library.unlink()
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False).returncode == 0
    return done and bool(libraries(root))


def caught(root: Path, tests: tuple[str, ...], seconds: float = SECONDS) -> str | None:
    """Run the tests: how the first failure shows, or None where all pass."""
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": str(root / ".cache"),
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", *tests]
    # A group of its own, so that what a test has started ends with it.
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=root, env=environment, start_new_session=True, **pipes) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"no end within {seconds} s"
    if process.returncode in (0, NOTHING_RUN):
        return None
    shown = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return (shown or output.splitlines()[-1:] or ["no output"])[0][:160]


def tried(mutation: Mutation, root: Path) -> str | None:
    """Make the mistake, run its tests and take it back: how it showed, or None where it did not."""
    path = root / mutation.file
    whole, built = path.read_bytes(), {library: library.read_bytes() for library in libraries(root)}
    path.write_text(mutation.planted(root) or "", encoding="utf-8")
    try:
        if path.suffix in NATIVE and not build(root):
            return "it does not compile"
        return caught(root, mutation.tests)
    finally:
        path.write_bytes(whole)
        if path.suffix in NATIVE:
            for library, content in built.items():
                library.write_bytes(content)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="only mutations whose file or description holds one of these")
    parser.add_argument("--list", type=Path, default=LIST, help="the mutations (%(default)s)")
    parser.add_argument("--at-once", action="store_true", help="believe that the tests pass without a mistake")
    parser.add_argument("--check", action="store_true", help="run no tests")
    options = parser.parse_args()
    mutations = [
        m for m in read(options.list) if not options.words or any(w in f"{m.file} {m.about}" for w in options.words)
    ]
    gone = [m for m in mutations if m.planted(ROOT) is None]
    for mutation in gone:
        print(f"GONE      {mutation.file}: {mutation.about} (the file does not have the old text once)")
    if options.check:
        print(f"{len(mutations) - len(gone)} of {len(mutations)} mutations can be planted")
        return 1 if gone else 0
    survived = []
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        root = copied(Path(folder))
        present = [m for m in mutations if m not in gone]
        if any(m.file.endswith(NATIVE) for m in present) and not build(root):
            print("The libraries of C++ cannot be built without any mistake: is setuptools there, and a compiler?")
            return 1
        # Files of tests in one run; what chooses among a file's tests (-k) in a run of its own.
        files = tuple(sorted({test for m in present for test in m.tests if "-k" not in m.tests}))
        for tests in {files, *(m.tests for m in present if "-k" in m.tests)} if not options.at_once else ():
            if tests and (broken := caught(root, tests, 10 * SECONDS)):
                print(f"The tests fail without any mistake: {broken}")
                return 1
        for mutation in present:
            begin = time.perf_counter()
            found = tried(mutation, root)
            survived += [] if found else [mutation]
            verdict, seconds = "caught" if found else "SURVIVED", time.perf_counter() - begin
            print(f"{verdict:9} {mutation.file}: {mutation.about} ({seconds:.0f} s) {found or ''}", flush=True)
    print(f"{len(present) - len(survived)} of {len(present)} caught ({1 - len(survived) / max(len(present), 1):.0%})")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
