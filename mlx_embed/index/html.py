"""The text of an HTML page, and where in its source each piece of it stands."""

import re
from dataclasses import dataclass
from html.parser import HTMLParser

from mlx_embed.index import sections
from mlx_embed.index.sections import Heading, Section

# Elements whose content is nobody's text.
_SILENT = {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas", "select", "button"}
_INLINE = {
    *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img"),
    *("ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub"),
    *("sup", "time", "tt", "u", "var", "wbr", "input"),
}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# As browsers have it: "<!-->" and "<!--->" are whole, and any other ends at the first "-->" or "--!>".
_WHOLE_COMMENT, _COMMENT_END = re.compile("<!---?>"), re.compile("--!?>")
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@dataclass(frozen=True)
class Page:
    """The text of a page.

    Attributes:
        text: paragraphs with an empty line between them.
        starts: where in `text` each of `spans` begins.
        spans: the first and last (exclusive) characters of the source that give the text from there on.
        sections: by its headings, and by its title in front of the first.
    """

    text: str
    starts: list[int]
    spans: list[tuple[int, int]]
    sections: list[Section]


def read(source: str) -> Page:
    """The text that a reader of the page sees; scripts, styles and attributes are left out."""
    parser = _Parser(source)
    parser.feed(source[: _end_of_tags(source)])
    parser.close()
    parser.end_span(len(source))
    return Page("".join(parser.parts), parser.starts, parser.spans, sections.nested(parser.headings))


def _end_of_tags(source: str) -> int:
    """Where what follows is a tag or a comment that never ends, which a browser leaves out; or the end."""
    unclosed = re.compile("<[A-Za-z/!?]").search(source, source.rfind(">") + 1)
    return unclosed.start() if unclosed else len(source)


class _Parser(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self._lines = [0, *(match.end() for match in re.finditer("\n", source))]
        self._length = 0
        self._silent = ""  # the element whose content is nobody's text, and how many of it are open
        self._depth = 0
        self._pre = 0
        self._break = ""  # what stands between the text so far and the next
        self._open: int | None = None  # where the span that has no end yet begins
        self._heading: tuple[int, int, list[str]] | None = None  # start, level, title
        self._title: list[str] | None = None
        self.parts: list[str] = []
        self.starts: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.headings: list[Heading] = []

    def parse_comment(self, i: int, report: bool = True) -> int:
        """A comment ends where browsers end it; one that never does is the rest of the page.

        Python's own looks for the end of each such comment anew, in time that grows with the square of their number.
        """
        self.end_span(self._here())
        found = _WHOLE_COMMENT.match(self.rawdata, i) or _COMMENT_END.search(self.rawdata, i + len("<!--"))
        return found.end() if found else len(self.rawdata)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """What "<![" begins is a comment up to the next ">"; Python's own raises AssertionError where it is no SGML."""
        return self.parse_bogus_comment(i, report)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.end_span(self._here())
        if tag in _SILENT:
            self._silent = self._silent or tag
            self._depth += tag == self._silent
        elif tag == "title" and not self._silent:
            self._title = []
        elif tag == "br":
            self._break = self._break or "\n"
        elif tag in ("td", "th"):
            self._break = self._break or " "
        elif tag in ("li", "tr", "dt", "dd", "option"):
            self._break = self._break if "\n\n" in self._break else "\n"
        elif tag not in _INLINE:
            self._break = "\n\n"
        self._pre += tag == "pre"
        if tag in _HEADINGS:
            self._heading = (-1, _HEADINGS[tag], [])

    def handle_endtag(self, tag: str) -> None:
        self.end_span(self._here())
        if tag in _SILENT:
            self._depth -= tag == self._silent
            self._silent = self._silent if self._depth else ""
        elif tag == "title" and self._title is not None:
            title = " ".join("".join(self._title).split())
            if title and not self.headings:
                self.headings.append((0, 0, title))
            self._title = None
        elif tag not in _INLINE and tag not in _VOID and tag not in ("td", "th", "li", "tr", "dt", "dd", "option"):
            self._break = "\n\n"
        self._pre = max(self._pre - (tag == "pre"), 0)
        if tag in _HEADINGS and self._heading is not None:
            start, level, words = self._heading
            if start >= 0:
                self.headings.append((start, level, " ".join("".join(words).split())))
            self._heading = None

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_comment(self, data: str) -> None:
        self.end_span(self._here())

    def handle_data(self, data: str) -> None:
        if self._title is not None:
            self._title.append(data)
            return
        if self._silent:
            return
        here = self._here()
        self.end_span(here)
        if self._pre:
            text = data
        else:
            text = re.sub(r"[ \t\r\n\f]+", " ", data)
            if text.startswith(" ") and not self._break:
                self._break = " "
            text = text.strip(" ")
        if not text:
            return
        between = self._break if self.parts else ""
        self._break = "" if self._pre or not data[-1:].isspace() else " "
        if between:
            self.parts.append(between)
            self._length += len(between)
        if self._heading is not None:
            start, level, words = self._heading
            self._heading = (self._length if start < 0 else start, level, words)
            words.append(between + text)
        self.starts.append(self._length)
        self._open = here
        self.parts.append(text)
        self._length += len(text)

    def end_span(self, end: int) -> None:
        """Let the span of the text before end here."""
        if self._open is not None:
            self.spans.append((self._open, end))
            self._open = None

    def _here(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column
