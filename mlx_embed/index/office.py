"""The paragraphs of PDF and DOCX files, by pypdf and python-docx."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

# A paragraph or page: its text, its level where it is a heading (else 0), and the heading.
Part = tuple[str, int, str]

_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)


def pdf(path: Path, data: bytes) -> list[Part]:
    """The pages of a PDF; one that holds only pictures is empty.

    Raises:
        ValueError: broken, or encrypted with a password.
        ImportError: pypdf is missing.
    """
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise _missing("PDF", "pypdf") from error
    with _logged("pypdf") as remarks:
        try:
            reader = PdfReader(BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise ValueError("it needs a password")
            # A lone surrogate is what pypdf makes of some broken fonts; UTF-8 cannot carry it.
            texts = [page.extract_text().encode("utf-8", "replace").decode() for page in reader.pages]
        except Exception as error:  # of a broken file pypdf raises nearly everything
            reasons = "; ".join(dict.fromkeys([_first_line(str(error)) or type(error).__name__, *remarks[:1]]))
            raise ValueError(f"{path} is no PDF that can be read: {reasons}.") from error
    if not any(text.strip() for text in texts):
        raise ValueError(f"{path} has no text in its {len(texts)} pages: they are pictures, which need OCR first.")
    return [(text, 0, "") for text in texts]


def docx(path: Path, data: bytes) -> list[Part]:
    """The paragraphs and rows of tables of a DOCX, in their order.

    Raises:
        ValueError: broken.
        ImportError: python-docx is missing.
    """
    try:
        from docx import Document
        from docx.table import Table
    except ImportError as error:
        raise _missing("DOCX", "python-docx") from error
    try:
        parts: list[Part] = []
        for item in Document(BytesIO(data)).iter_inner_content():
            if isinstance(item, Table):
                parts += [(" | ".join(_cells(row)), 0, "") for row in item.rows]
            else:
                parts.append(_paragraph(item))
        return parts
    except Exception as error:
        reason = _first_line(str(error)) or type(error).__name__
        raise ValueError(f"{path} is no DOCX that can be read: {reason}.") from error


def _paragraph(paragraph: Any) -> Part:
    style = paragraph.style.name if paragraph.style is not None else ""
    found = _HEADING.match(style or "")
    level = int(found[1]) if found else int(style == "Title")
    text: str = paragraph.text
    return text, level if text.strip() else 0, text.strip()


def _cells(row: Any) -> list[str]:
    """The texts of a row; a cell that spans several columns is there once."""
    seen: list[Any] = []
    for cell in row.cells:
        if not seen or seen[-1]._tc is not cell._tc:
            seen.append(cell)
    return [cell.text for cell in seen]


def _missing(kind: str, package: str) -> ImportError:
    return ImportError(f'{kind} needs {package}: pip install ".[documents]" in a clone of mlx-embed')


@contextmanager
def _logged(name: str) -> Iterator[list[str]]:
    """The first lines of what a library logs in this thread, which Python would else print where nobody listens."""
    said: list[str] = []
    thread = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread and (line := _first_line(record.getMessage())):
                said.append(line)

    listener, logger = Listener(logging.WARNING), logging.getLogger(name)
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)


def _first_line(text: str) -> str:
    return text.strip().rstrip(".").partition("\n")[0]
