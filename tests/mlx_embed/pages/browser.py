"""A real browser that opens a page from the disk, and what it says of it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The flags let WebGL run without a graphics card.
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@dataclass
class Complaints:
    """What went wrong while pages were open.

    Attributes:
        said: lines of the console, and errors of scripts.
        asked: addresses that a page has asked for, itself left out.
    """

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("there is no Chromium here")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Any, address: str, width: int, scheme: str = "light", **options: Any) -> tuple[Any, Complaints]:
    """A page in a window of so many pixels, once it is loaded; and what went wrong."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    page, complaints = context.new_page(), Complaints()
    page.on("console", lambda message: complaints.said.append(message.text))
    page.on("pageerror", lambda error: complaints.said.append(str(error)))
    page.on("request", lambda request: complaints.asked.append(request.url))
    page.goto(address)
    page.wait_for_load_state("load")
    complaints.asked.remove(address)
    return page, complaints
