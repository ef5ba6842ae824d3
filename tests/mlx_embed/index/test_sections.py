"""Headings and definitions: where each begins, and under what it stands."""

import pytest

from mlx_embed.index import sections


def outline(text: str, kind: str) -> list[tuple[str, str]]:
    """The path of each section, and the line that it begins with."""
    return [(" > ".join(s.path), text[s.start :].split("\n")[0]) for s in sections.of(text, kind)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# A\ntext\n## B ##\n# C", [("A", "# A"), ("A > B", "## B ##"), ("C", "# C")]),
        ("A\n===\nB\nb\n---\n", [("A", "A"), ("A > B b", "B")]),
        ("```\n# no\n```\n# A", [("A", "# A")]),
        ("~~~~ py\n# no\n~~~\n# no\n~~~~~\n# A", [("A", "# A")]),
        ("---\ntitle: x\n# no\n---\n# A", [("A", "# A")]),
        ("---\n# A\n", [("A", "# A")]),
        ("    # code\n#no\n####### no\n- a\n---\n| a |\n---\n\n---", []),
        ("# A\r\n\r\n## B\r\n", [("A", "# A\r"), ("A > B", "## B\r")]),
        ("### C\n# A\n### D\n## B\n", [("C", "### C"), ("A", "# A"), ("A > D", "### D"), ("A > B", "## B")]),
        ("", []),
        ("#\n", [("", "#")]),
    ],
)
def test_markdown(text: str, found: list[tuple[str, str]]) -> None:
    assert outline(text, "markdown") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "====\nDoc\n====\n\nOne\n===\n\ntext\n\nTwo\n---\n",
            [("Doc", "===="), ("Doc > One", "One"), ("Doc > One > Two", "Two")],
        ),
        ("One\n---\n\nTwo\n---\n", [("One", "One"), ("Two", "Two")]),
        ("text\nmore\n====\n", []),
        ("a table:\n\n=== ===\na   b\n=== ===\n", []),
        ("A longer title\n==\n", []),
        ("para\n\n----\n\npara\n", []),
    ],
)
def test_restructuredtext(text: str, found: list[tuple[str, str]]) -> None:
    assert outline(text, "rst") == found


PYTHON = '''"""Module."""
import os

@decorator
class A:
    """def no(): in a string."""

    async def f(self):
        def inner(): pass
        return 1

x = 1
def g(): pass
'''


def test_python() -> None:
    assert outline(PYTHON, "python") == [
        ("class A", "@decorator"),
        ("class A > def f", "    async def f(self):"),
        ("class A > def f > def inner", "        def inner(): pass"),
        ("class A > def f", "        return 1"),
        ("", ""),
        ("def g", "def g(): pass"),
        ("", ""),
    ]


@pytest.mark.parametrize("text", ["def f(:\n", "print 'two'\ndef f(): pass", "def f(): pass\0", "def f():\r    pass"])
def test_python_that_cannot_be_parsed_has_no_sections(text: str) -> None:
    assert sections.of(text, "python") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "// About f.\n#[inline]\npub fn f(a: u8) -> u8 {\n    a\n}\nstatic X: u8 = 1;\n",
            [("fn f", "// About f."), ("", "static X: u8 = 1;")],
        ),
        (
            "public class A {\n  private int b(String s) {\n    return c(s);\n  }\n}\n",
            [("class A", "public class A {"), ("class A > b", "  private int b(String s) {")],
        ),
        ("func (s *S) Run() error {\n\treturn nil\n}\n", [("func (s *S) Run", "func (s *S) Run() error {")]),
        ("export const go = async (x) => {\n  f(x)\n}\n", [("go", "export const go = async (x) => {")]),
        (
            "static float sum(const float* x,\n    int n) {\n  if (x) return f(x);\n}\n",
            [("sum", "static float sum(const float* x,")],
        ),
        ("int f(int);\nelse if (a) {\n", []),
        ("run() {\n  echo\n}\n", [("run", "run() {")]),
        ("module A\n  def b\n  end\nend\n", [("module A", "module A"), ("module A > def b", "  def b")]),
        ("x" * 500 + " f(\n", []),
    ],
)
def test_code(text: str, found: list[tuple[str, str]]) -> None:
    assert outline(text, "code") == found


def test_no_line_takes_long() -> None:
    """Expressions that try every way to read a line would take hours here."""
    for line in ("a " * 190, "a*" * 190, "public " * 50, "(" * 399, "a<" * 190, "- " * 190, "=" * 399):
        for kind in ("markdown", "rst", "code"):
            sections.of(f"{line}\n" * 20, kind)
