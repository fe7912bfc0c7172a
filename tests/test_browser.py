"""The report in real Chromium."""

from __future__ import annotations

import pytest
from test_report import BANNER, HOSTILE, build, make_run

pytestmark = pytest.mark.browser
LAPTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    paths = make_run(tmp_path_factory.mktemp("browser"))
    build(paths)
    return paths.report


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [LAPTOP, PHONE], ids=["1280", "390"])
def test_report_opens_without_errors_requests_or_overflow(visit, report, viewport, scheme):
    page, problems = visit(report, viewport=viewport, color_scheme=scheme)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.evaluate("scrollTo(0, 0)")
    assert page.get_by_role("heading", level=1).is_visible()
    assert page.get_by_text(BANNER).is_visible()
    images = page.eval_on_selector_all("img", "images => images.map(i => i.complete && i.naturalWidth > 0)")
    assert images == [True, True]
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.locator("td", has_text=HOSTILE).first.is_visible()
    assert page.locator("p", has_text=HOSTILE).first.is_visible()
    assert problems == []


def test_banner_stays_in_view_and_the_contents_follow_the_reader(visit, report):
    page, problems = visit(report, viewport=LAPTOP)
    page.get_by_role("link", name="Confusion", exact=True).click()
    page.wait_for_function("document.querySelector('nav.toc a[aria-current]').textContent == 'Confusion'")
    heading = page.get_by_role("heading", name="Confusion").bounding_box()
    banner = page.get_by_text(BANNER).bounding_box()
    assert banner["y"] == 0 and banner["height"] <= heading["y"] < 200
    assert problems == []


def test_code_opens_on_a_click_and_is_closed_before(visit, report):
    page, _ = visit(report, viewport=LAPTOP)
    block = page.locator("details.code").first
    assert not block.locator("pre").is_visible()
    block.locator("summary").click()
    assert block.locator("pre").is_visible()


def test_wide_tables_scroll_inside_their_own_box(visit, report):
    page, _ = visit(report, viewport=PHONE)
    widths = page.eval_on_selector_all(".scroll", "boxes => boxes.map(b => [b.scrollWidth, b.clientWidth])")
    assert max(scroll for scroll, _ in widths) > 390 and max(client for _, client in widths) <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit, report, scheme):
    page, _ = visit(report, viewport=LAPTOP, color_scheme=scheme)
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) == 17
    assert {what: r for what, r in ratios.items() if r < 4.5} == {}


CONTRAST = """() => {
  const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => {
    const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb(c).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length == 3 || c[3] > 0) return getComputedStyle(e).backgroundColor;
    }
    return "rgb(255, 255, 255)";
  };
  const found = {};
  const places = [".banner", "h1", ".subtitle",
    ".facts dt", ".prose p", "pre.out", "thead th", "table:not(.styled) td",
    "summary", "figcaption", ".mark", ".chip", ".error", ".toc a", ".toc a[aria-current]", "footer", ".note"];
  for (const s of places)
    for (const e of document.querySelectorAll(s)) {
      const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => x - y);
      found[s] = Math.min(found[s] ?? 99, (b + 0.05) / (a + 0.05));
    }
  return found;
}"""
