"""The HTML report: same bytes, nothing hostile, nothing missing."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hac_utils.errors import HacError
from hac_utils.paths import RunPaths
from hac_utils.report import BANNER, _declarations, build_report

HOSTILE = "</script><img src=x onerror=alert(1)>"
WIDGET = "application/vnd.jupyter.widget-view+json"
WARNING = (
    "10%\r50%\r100% done\n  0%|      | 0/3 [00:00<?, ?it/s]\r100%|####| 3/3 [00:00<00:00, 81.2it/s]\n"
    "/tmp/ipykernel_4711/99.py:1: UserWarning: careful\n"
)
FACTS = [("clips", "1,150"), ("hF, best system", "71.4 %"), (HOSTILE, HOSTILE)]


def png(seed: int = 0, size=(7.2, 4.0)) -> str:
    """A small figure as a notebook holds it: base64 with line ends."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 10}):
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.subplots()
        rng = np.random.default_rng([3, seed])
        x = np.sort(rng.uniform(2, 5, 23))
        ax.scatter(x, 20 * x + rng.normal(0, 6, 23), s=40)
        ax.set(xlabel="mean confidence (1–5)", ylabel="accuracy (%)")
        ax.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return base64.encodebytes(buffer.getvalue()).decode()


def scores_frame() -> pd.DataFrame:
    rows = [
        ("Linear, audio", 60.11, "58.20 ± 0.41"),
        ("MLP, audio + text", 68.4, "66.95 ± 0.80"),
        ("Fusion", 71.36, "—"),
    ]
    frame = pd.DataFrame(rows, columns=["system", "hF (%)", "hA (%)"])
    frame["title of the worst clip"] = ["rec_0023.wav", HOSTILE, "Überraschung · 雨の音"]
    return frame


def html_of(frame: pd.DataFrame) -> dict[str, str]:
    return {"text/html": frame._repr_html_(), "text/plain": str(frame)}


def code(source: str, *outputs, count: int | None = 1, tags=()) -> nbformat.NotebookNode:
    cell = new_code_cell(source, execution_count=count, outputs=list(outputs))
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def show(data: dict, metadata: dict | None = None):
    return new_output("display_data", data=data, metadata=metadata or {})


def printed(name: str, text: str):
    return new_output("stream", name=name, text=text)


def write(path: Path, cells: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = new_notebook(cells=cells)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    path.write_text(json.dumps(notebook, indent=1, sort_keys=True), encoding="utf-8")


def make_run(root: Path, styler_uuid: str = "ab12c") -> RunPaths:
    """A run of three executed notebooks (one stopped with an error) out of five."""
    paths = RunPaths("demo", root)
    styler = pd.DataFrame(np.round(np.linspace(0, 1, 16).reshape(4, 4), 2), columns=list("abcd")).style
    styler = styler.background_gradient(cmap="Blues").format("{:.2f}").set_uuid(styler_uuid)
    failure = new_output(
        "error",
        ename="ZeroDivisionError",
        evalue=f"division by zero {HOSTILE}",
        traceback=["\x1b[0;31mZeroDivisionError\x1b[0m: division by zero"],
    )
    wide = pd.DataFrame(np.arange(23 * 4).reshape(4, 23) * 7, columns=[f"fx-{i:02d}" for i in range(23)])
    write(
        paths.notebooks / "01_extraction.ipynb",
        [
            new_markdown_cell(
                "# 01 · Audio and text to vectors\n\n"
                "Every clip becomes one vector per encoder. See [the heads](02_heads.ipynb).\n\n"
                "| file | written by | read by |\n| --- | --- | --- |\n"
                "| `embeddings/clap/` | this notebook | 02, 04 |\n| `data/metadata.csv` | `hac demo` | all |"
            ),
            code('profile: str = "demo"\nseed: int = 0\nencoders: list = ["laion-clap"]', tags=["parameters"]),
            code("seed = 7", tags=["injected-parameters"]),
            code("from pathlib import Path\n\nimport numpy as np  # quiet set-up"),
            new_markdown_cell(
                f"## How long the clips are\n\nMost clips are short. A title can be anything: {HOSTILE} "
                "and ![a picture](https://example.org/x.png) and [click](javascript:alert(2))."
            ),
            code(
                "plot_lengths(frame)  # drawn\nx = '<b>'",
                printed("stdout", "1150 clips\n\x1b[31m12\x1b[0m failed\n"),
                show({"image/png": png(0), "text/plain": "<Figure size 720x400 with 1 Axes>"}),
            ),
            code(
                "secret_plot()",
                show(
                    {"image/png": png(1)},
                    {"image/png": {"alt": "Length by family", "width": 360, "height": 200}},
                ),
                tags=["hide-input"],
            ),
            code("progress()", printed("stderr", WARNING)),
        ],
    )
    write(
        paths.notebooks / "02_heads.ipynb",
        [
            new_markdown_cell("# 02 · Heads on frozen embeddings\n\nWhat a small network makes of them."),
            new_markdown_cell(
                "## Scores\n\nThe fused system is ahead on every fold; the gap is larger than the noise.\n\n"
                "The hierarchical score gives $0.375$ for a clip in the right family."
            ),
            code("scores", show(html_of(scores_frame()))),
            new_markdown_cell("## Confusion\n\nRows are the truth."),
            code("confusion", show({"text/html": styler.to_html(), "text/plain": "<pandas.Styler at 0x7f>"})),
            code("wide", show(html_of(wide))),
            code(
                "raw",
                show(
                    {
                        "text/html": '<div onclick="alert(3)" style="background:url(https://e.org/a.png);color:red">shown'
                        f"{HOSTILE}<script>alert(4)</script>"
                        '<style>body{display:none} @import "https://e.org/x.css";</style>'
                        '<a href="https://e.org">, no link</a></div>'
                    }
                ),
            ),
            code(
                "tqdm",
                show({WIDGET: {"model_id": "y"}, "text/plain": "  0%|          | 0/3 [00:00<?, ?it/s]"}),
            ),
            code("slider", show({WIDGET: {"model_id": "x"}, "text/plain": "interactive(...)"})),
        ],
    )
    write(
        paths.notebooks / "03_ensemble.ipynb",
        [
            new_markdown_cell("# 03 · Ensemble\n\nMean of probabilities."),
            new_markdown_cell(
                "<span style='color:red'>An Exception was encountered</span>",
                metadata={"tags": ["papermill-error-cell-tag"]},
            ),
            code("1 / 0", failure),
            code("never()", count=None),
        ],
    )
    originals = {"02_heads": "02 · Heads", "04_ambiguity": f"04 · Ambiguity {HOSTILE}", "05_submission": "05"}
    for name, title in originals.items():
        cells = [new_markdown_cell(f"# {title}\n\nText.\n\n## Part"), code("x = 1", count=None)]
        write(root / "notebooks" / f"{name}.ipynb", cells)
    return paths


def build(paths: RunPaths, **changes) -> str:
    options = {
        "title": "Heterogeneous audio classification",
        "subtitle": "What frozen embeddings know.",
        "synthetic": True,
        "facts": FACTS,
    }
    return build_report(paths, **(options | changes)).read_text("utf-8")


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text outside of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text, self._raw = "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("style", "script")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        if not self._raw:
            self.text += data


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    return build(make_run(tmp_path_factory.mktemp("run")))


def test_the_same_notebooks_give_the_same_bytes(tmp_path):
    first = build(make_run(tmp_path / "a", "ab12c"))
    assert first == build(RunPaths("demo", tmp_path / "a"))
    assert first == build(make_run(tmp_path / "b", "99fe0")), "pandas draws a new table id in every run"
    assert "99fe0" not in first and "ab12c" not in first
    assert sorted(p.name for p in (tmp_path / "a/runs/demo").iterdir()) == ["notebooks", "report.html"]


def test_text_from_data_never_becomes_markup(html):
    elements = Elements(html)
    assert not any(name.startswith("on") for _, attrs in elements.tags for name in attrs)
    assert sum(tag == "script" for tag, _ in elements.tags) == 1
    assert all(attrs["src"].startswith("data:image/") for tag, attrs in elements.tags if tag == "img")
    assert not re.search(r"alert\([34]\)|javascript:|body\{display|@import|e\.org", html)
    # markdown, table cell, fact (label, value), error message, a title in the contents and over its section
    assert elements.text.count(HOSTILE) == 7


def test_nothing_is_loaded_from_elsewhere_and_the_policy_names_the_one_script(html):
    elements = Elements(html)
    policy = next(
        a["content"] for t, a in elements.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    script = re.search(r"<script>(.*?)</script>", html, re.S).group(1)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy and "img-src data:;" in policy and "http" not in policy
    assert not re.search(r"url\(|src=\"(?!data:)|<link(?! rel=\"icon\" href=\"data:,\")", html)


def test_the_demo_corpus_is_named_in_banner_title_and_every_figure(html, tmp_path):
    assert html.count(BANNER) == 1
    assert "<title>Heterogeneous audio classification (synthetic demo corpus)</title>" in html
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert len(captions) == 2 and all("synthetic demo corpus" in c for c in captions)
    assert "ynthetic" not in Elements(build(make_run(tmp_path), synthetic=False)).text


def test_figures_carry_number_heading_size_and_a_text_alternative(html):
    images = [attrs for tag, attrs in Elements(html).tags if tag == "img"]
    assert images[0]["alt"].startswith("Figure 1: How long the clips are. Most clips are short.")
    assert images[1]["alt"] == "Length by family"
    assert (images[1]["width"], images[1]["height"]) == ("360", "200"), "high-density figures keep their size"
    assert (images[0]["width"], images[0]["height"]) == ("720", "400")
    assert base64.b64decode(images[0]["src"].split(",")[1]) == base64.b64decode(png(0))


def test_code_is_folded_and_hidden_or_parameter_cells_show_none(html):
    blocks = [re.sub("<.*?>", "", b) for b in re.findall(r'<details class="code">(.*?)</details>', html, re.S)]
    assert "quiet set-up" in blocks[0] and "plot_lengths(frame)" in blocks[0], "cells without output join the next one"
    assert "&lt;b&gt;" in blocks[0]
    assert "secret_plot" not in html and "profile: str" not in html and "<details open" not in html
    settings = re.search(r'<details class="settings">(.*?)</details>', html).group(1)
    assert "<th>seed</th><td><code>7</code></td>" in settings and settings.count("<tr>") == 3


def test_printed_text_loses_terminal_codes_and_progress_keeps_its_end(html):
    assert '<pre class="out">1150 clips\n12 failed</pre>' in html
    assert "<pre>100% done\ncell:1: UserWarning: careful</pre>" in html and "50%" not in Elements(html).text
    assert "Figure size" not in html and "Styler at" not in html and "interactive(" not in html
    assert html.count("Interactive control") == 1, "progress bars are no controls"


def test_tables_scroll_align_numbers_and_keep_only_their_own_styles(html):
    tables = re.findall(r'<div[^>]*class="scroll"[^>]*>\s*<table.*?</table>', html, re.S)
    scores = next(t for t in tables if "Linear, audio" in t)
    assert (
        '<td class="num">58.20 ± 0.41</td>' in scores
        and '<th class="num">hA (%)</th>' in scores
        and '<td class="num">60.11</td>' in scores
        and '<th class="num">hF (%)</th>' in scores
        and "<th>system</th>" in scores
    )
    assert ".dataframe tbody tr th" not in html, "pandas' scoped style would reach every table of the page"
    assert re.search(r"#T1_row0_col0[^{]*\{ background-color: #f7fbff; color: #000000; \}", html)
    assert '<table class="styled" id="T1">' in html and 'id="T1_row0_col0"' in html


@pytest.mark.parametrize(
    ("style", "kept"),
    [
        (
            "color: red; background: linear-gradient(90deg, #d65f5f 40.0%, transparent 40.0%)",
            "color: red; background: linear-gradient(90deg, #d65f5f 40.0%, transparent 40.0%);",
        ),
        ("background: url(https://e.org)", ""),
        ("background: linear-gradient(url('x'), red)", ""),
        ("background: calc(u\\72l(x))", ""),
        ("width: image-set('https://e.org/x.png' 1x)", ""),
        ("position: fixed; top: 0; color: blue !important", "color: blue !important;"),
        ("color: red} body {color: green", ""),
        ("font-family: '</style><script>'", ""),
    ],
)
def test_style_declarations_keep_looks_and_drop_whatever_could_fetch_or_cover(style, kept):
    assert _declarations(style) == kept


def test_failed_and_missing_notebooks_are_said_at_once(html):
    order = re.findall(r'<section aria-labelledby="([^"]+)" class="([^"]+)">', html)
    assert order == [
        ("nb-01-extraction", "done"),
        ("nb-02-heads", "done"),
        ("nb-03-ensemble", "failed"),
        ("nb-04-ambiguity", "not-run"),
        ("nb-05-submission", "not-run"),
    ]
    assert "there are no results from <code>runs/demo/notebooks/05_submission.ipynb</code>" in html
    head = html[html.index("<header>") : html.index("</header>")]
    assert "One notebook stopped with an error" in head and 'href="#nb-03-ensemble"' in head
    assert "<strong>ZeroDivisionError</strong>" in html and "An Exception was encountered" not in html


def test_contents_and_links_between_notebooks_point_to_anchors_of_the_page(html):
    elements = Elements(html)
    ids = [a["id"] for _, a in elements.tags if "id" in a]
    assert len(ids) == len(set(ids))
    local = [a["href"][1:] for t, a in elements.tags if t == "a" and a["href"].startswith("#")]
    assert set(local) <= set(ids) and "02-heads-scores" in local
    assert '<a href="#nb-02-heads">the heads</a>' in html


def test_a_notebook_cut_off_half_way_is_called_incomplete(tmp_path):
    paths = make_run(tmp_path)
    write(paths.notebooks / "06_cut.ipynb", [new_markdown_cell("# Cut"), code("a"), code("b", count=None)])
    html = build(paths)
    assert 'class="incomplete"' in html and "1 of 2 code cells ran" in html


def test_a_failed_run_of_a_notebook_stands_in_its_place_and_an_unfinished_one_is_not_read(tmp_path):
    paths = make_run(tmp_path)
    failure = new_output("error", ename="ValueError", evalue="second try", traceback=[])
    write(paths.notebooks / "02_heads.failed.ipynb", [new_markdown_cell("# 02 · Heads"), code("a", failure)])
    (paths.notebooks / ".04_ambiguity.running.ipynb").write_text("{", encoding="utf-8")
    html = build(paths)
    order = re.findall(r'<section aria-labelledby="([^"]+)" class="([^"]+)">', html)
    assert [status for _, status in order] == ["done", "failed", "failed", "not-run", "not-run"]
    assert order[1][0] == "nb-02-heads" and "second try" in html and "2 notebooks stopped" in html


def test_a_broken_picture_or_odd_characters_do_not_break_the_page(tmp_path):
    paths = make_run(tmp_path)
    write(
        paths.notebooks / "06_odd.ipynb",
        [
            code(
                "a",
                show({"image/png": "bm90IGEgcG5n"}),
                printed("stdout", "a\x00b\ud800c"),
            )
        ],
    )
    html = build(paths)
    assert "A picture that cannot be read." in html and "ab?c" in html and "\x00" not in html


def test_nothing_executed_or_a_broken_notebook_is_one_clear_error(tmp_path):
    with pytest.raises(HacError, match="no executed notebook"):
        build(RunPaths("demo", tmp_path))
    paths = make_run(tmp_path)
    before = build(paths)
    (paths.notebooks / "02_heads.ipynb").write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(HacError, match="not readable as a notebook") as error:
        build(paths)
    assert "02_heads.ipynb" in error.value.where
    assert paths.report.read_text("utf-8") == before, "the old report stays whole"
