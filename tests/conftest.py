"""What several test files share: the public data beside the checkout, and a real browser."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def real() -> Path:
    """``../shared/real``: public files of the task, beside the checkout on the project's own machines."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "real"
    if not folder.is_dir():
        pytest.skip("../shared/real is not here (only on the project's own machines)")
    return folder


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium. Without it browser tests fail in CI and skip elsewhere."""
    if CHROMIUM is None:
        reason = "no Chromium found (apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def visit(browser):
    """``visit(path, **context options)`` opens a local page and gives ``(page, problems)``.

    `problems` grows with every console error, page error and request that leaves the file.
    """
    contexts = []

    def open_page(path: Path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page, problems = context.new_page(), []
        page.on(
            "console",
            lambda m: problems.append(f"console: {m.text}") if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda e: problems.append(f"page: {e}"))
        page.on("dialog", lambda d: (problems.append(f"dialog: {d.message}"), d.dismiss()))
        page.on(
            "request",
            lambda r: problems.append(f"request: {r.url[:200]}") if not r.url.startswith(("file:", "data:")) else None,
        )
        page.goto(Path(path).resolve().as_uri(), wait_until="load")
        return page, problems

    yield open_page
    for context in contexts:
        context.close()
