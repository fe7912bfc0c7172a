"""One HTML file that tells a run: its executed notebooks, without their code, in name order."""

from __future__ import annotations

import ast
import base64
import hashlib
import re
import struct
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from .errors import HacError
from .io import write_bytes
from .paths import RunPaths

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

BANNER = "Synthetic demo corpus: no number on this page says anything about real recordings."

_PARAMETERS = {"parameters", "injected-parameters"}
_PAPERMILL_NOTE = "papermill-error-cell-tag"
_WIDGET = "application/vnd.jupyter.widget-view+json"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PROGRESS = re.compile(r"\d+%\|[^|]*\| *[\d.]+\w?/[\d.]+")  # tqdm: speed and time differ from run to run
_CELL_FILE = re.compile(r"\S*ipykernel_\d+\S*\.py")
_BARE_REPR = re.compile(r"^[\[({]*<(Axes|Figure|matplotlib|seaborn|IPython)\b|^<[^>]* at 0x[0-9a-f]+>$")
_DIGITS = r"[+\-−–]?[\d.,]*\d[\d.,]*(e[+-]?\d+)?"
_NUMBER = re.compile(rf"^([<≤≥≈]\s?)?{_DIGITS}(\s?±\s?{_DIGITS})?(\s?(%|pp|s|ms|h|dB|Hz|kHz))?$|^(nan|NaN|—|–|-)?$")
_SELECTOR = re.compile(r"^#T\d+(?![a-zA-Z])[\w\s.:#>+~*()-]*$")

# What may stay of HTML that a cell printed. Everything else goes, scripts with their content.
_DROPPED_WHOLE = "script style iframe object embed template noscript svg math audio video form".split()
_TAGS = set(
    "a abbr b blockquote br caption code col colgroup dd del div dl dt em h3 h4 h5 h6 hr i kbd li mark ol p "
    "pre s small span strong sub sup table tbody td tfoot th thead tr u ul".split()
)
_ATTRIBUTES = {
    "*": ["class", "id", "style", "title", "tabindex", "role", "aria-label"],
    "a": ["href", "rel"],
    "ol": ["start"],
    **{tag: ["colspan", "rowspan", "scope"] for tag in ("td", "th", "col", "colgroup")},
}
_CSS_PROPERTIES = re.compile(
    r"^((min-|max-)?(width|height)|(background|border|font|margin|padding|text)(-[a-z]+)*|caption-side|color|display"
    r"|line-height|opacity|vertical-align|white-space)$"
)
_CSS_FUNCTIONS = {"rgb", "rgba", "hsl", "hsla", "linear-gradient", "calc"}


def build_report(
    paths: RunPaths, *, title: str, subtitle: str, synthetic: bool, facts: Iterable[tuple[str, str]] = ()
) -> Path:
    """Write ``runs/NAME/report.html`` from ``runs/NAME/notebooks/*.ipynb`` and return its path.

    The page is one file: pictures are data URIs, nothing is loaded from elsewhere, and a strict
    Content-Security-Policy says so. The same notebooks give the same bytes.

    Parameters
    ----------
    paths : RunPaths
        The run. Notebooks of the checkout that it has not executed are listed as "not run".
    title, subtitle : str
        Plain text for the head of the page.
    synthetic : bool
        True for the demo corpus: puts :data:`BANNER` on top and marks the title and every figure.
    facts : pairs of (label, value)
        Key facts, shown as small cards.

    Raises
    ------
    HacError
        When no notebook was executed, or one of them is not readable.
    """
    # NAME.failed.ipynb goes on success, so it is the newest. Dot files are notebooks still running.
    found = sorted(paths.notebooks.glob("[!.]*.ipynb"), key=lambda path: path.name.endswith(".failed.ipynb"))
    executed = {path.name.replace(".failed.ipynb", ".ipynb"): path for path in found}
    if not executed:
        raise HacError("no executed notebook to report on", str(paths.notebooks), f"hac run {paths.name}")
    originals = {path.name: path for path in sorted((paths.root / "notebooks").glob("*.ipynb"))}
    page = _Page(sorted(executed | originals), synthetic)
    sections = []
    for name in page.names:
        notebook = _read(executed.get(name) or originals[name])
        where = paths.relative(paths.notebooks / name)
        sections.append(page.section(name, notebook, where, ran=name in executed))
    html = _render(
        name=paths.name,
        title=title,
        subtitle=subtitle,
        banner=BANNER if synthetic else "",
        facts=[(str(label), str(value)) for label, value in facts],
        sections=sections,
        failed=[s for s in sections if s["status"] == "failed"],
        styles="\n".join(page.styles),
    )
    write_bytes(paths.report, _CONTROL.sub("", html).encode("utf-8", "replace"))
    return paths.report


def _render(styles: str, **values: Any) -> str:
    template, css, script = (
        resources.files("hac_utils").joinpath("assets", f"report.{kind}").read_text("utf-8").strip()
        for kind in ("html.j2", "css", "js")
    )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(template).render(
        **values,
        css=Markup(f"{css}\n{styles}"),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _read(path: Path) -> Any:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as e:  # json, validation and unicode errors have no common base
        reason = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise HacError(f"not readable as a notebook: {reason}", str(path), "run it again") from None


class _Page:
    """What the sections share: anchors, figure and table numbers, and the styles of styled tables."""

    def __init__(self, names: list[str], synthetic: bool) -> None:
        self.names, self.synthetic = names, synthetic
        self.anchors: set[str] = set()
        self.figures = self.styled = 0
        self.styles: list[str] = []
        self.heading = self.paragraph = ""
        self.headings: list[dict[str, str]] = []
        self.title: str | None = None
        self.links = {name: self.anchor(f"nb-{Path(name).stem}") for name in names}

    def anchor(self, text: str) -> str:
        """A page-wide unique id made of `text`."""
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
        name, n = base, 1
        while name in self.anchors:
            n += 1
            name = f"{base}-{n}"
        self.anchors.add(name)
        return name

    def section(self, name: str, notebook: Any, where: str, *, ran: bool) -> dict[str, Any]:
        """One notebook as the values the template needs."""
        self.heading, self.paragraph, self.headings, self.title = "", "", [], None
        cells = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
        done = [c for c in cells if c.execution_count is not None]
        if not ran or (cells and not done):
            status, body = "not run", []
            self.body(notebook.cells[:1], Path(name).stem)  # for the title
            self.headings = []
        else:
            failed = any(o.output_type == "error" for c in cells for o in c.outputs)
            status = "failed" if failed else "done" if len(done) == len(cells) else "incomplete"
            body = self.body(notebook.cells, Path(name).stem)
        return {
            "anchor": self.links[name],
            "title": self.title or Path(name).stem,
            "headings": self.headings,
            "status": status,
            "where": where,
            "progress": f"{len(done)} of {len(cells)} code cells ran",
            "body": Markup("\n").join(body),
        }

    def body(self, cells: list[Any], stem: str) -> list[Markup]:
        parts: list[Markup] = []
        sources: list[str] = []
        settings: dict[str, str] = {}

        def flush_code() -> None:
            if sources:
                parts.append(_folded("code", "Code", _highlight("\n\n".join(sources))))
                sources.clear()

        def flush_settings() -> None:
            if settings:
                row = Markup("<tr><th>{}</th><td><code>{}</code></td></tr>")
                rows = Markup("").join(row.format(*item) for item in settings.items())
                parts.append(_folded("settings", "Settings", Markup("<table>{}</table>").format(rows)))
                settings.clear()

        for cell in cells:
            tags = set(cell.metadata.get("tags", []))
            if cell.cell_type == "code" and tags & _PARAMETERS:
                settings.update(_assignments(cell.source))
                parts += self.outputs(cell.outputs, stem)
                continue
            flush_settings()
            if cell.cell_type == "markdown" and _PAPERMILL_NOTE not in tags:
                parts.append(self.markdown(cell.source, stem))
            elif cell.cell_type == "code":
                if "hide-input" not in tags and cell.source.strip():
                    sources.append(cell.source.strip("\n"))
                outputs = self.outputs(cell.outputs, stem)
                if outputs and "hide-input" not in tags:
                    flush_code()  # with the code of the cells before that showed nothing
                parts += outputs
        flush_settings()
        flush_code()
        return parts

    def outputs(self, outputs: list[Any], stem: str) -> list[Markup]:
        parts: list[Markup] = []
        streams = {"stdout": "", "stderr": ""}
        for output in outputs:
            if output.output_type == "stream":
                streams[output.name] = streams.get(output.name, "") + output.text
                continue
            parts += _stream(streams)
            if output.output_type == "error":
                trace = _folded("trace", "Traceback", _plain("\n".join(output.get("traceback", []))))
                box = Markup('<div class="error" role="alert"><strong>{}</strong>: {}{}</div>')
                parts.append(box.format(output.ename, _plain(output.evalue), trace))
            else:
                part = self.display(output.data, output.get("metadata", {}), stem)
                parts += [part] if part else []
        return parts + _stream(streams)

    def display(self, data: dict[str, Any], metadata: dict[str, Any], stem: str) -> Markup | None:
        """The best of what one output offers, or None when nothing in it is for readers."""
        if "image/png" in data:
            return self.figure(data["image/png"], metadata.get("image/png", {}))
        if _WIDGET in data:
            if _PROGRESS.search(data.get("text/plain", "")):
                return None
            return Markup('<p class="note">Interactive control: it works in the notebook only.</p>')
        if "text/html" in data:
            html = self.printed_html(data["text/html"])
            return Markup('<div class="result">{}</div>').format(html) if html.striptags().strip() else None
        if "text/markdown" in data:
            return self.markdown(data["text/markdown"], stem)
        text = _plain(data.get("text/plain", "")).strip("\n")
        if not text.strip() or _BARE_REPR.search(text):
            return None
        return Markup('<pre class="out">{}</pre>').format(text)

    def figure(self, payload: str, metadata: dict[str, Any]) -> Markup:
        payload = "".join(payload.split())
        try:
            raw = base64.b64decode(payload, validate=True)
        except ValueError:
            raw = b""
        if raw[:8] != b"\x89PNG\r\n\x1a\n" or len(raw) < 24:
            return Markup('<p class="note">A picture that cannot be read.</p>')
        size = dict(zip(("width", "height"), struct.unpack(">II", raw[16:24]), strict=True))
        size |= {k: v for k, v in metadata.items() if k in size and isinstance(v, int)}  # high-density figures
        self.figures += 1
        given = str(metadata.get("alt", ""))
        label = given or self.heading or self.title or "Figure"
        alt = given or f"Figure {self.figures}: {label}. {self.paragraph}".strip()
        mark = Markup(' <span class="mark">synthetic demo corpus</span>') if self.synthetic else ""
        image = Markup('<img src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">')
        card = Markup('<div class="card">{}</div>').format(image.format(payload, alt, *size.values()))
        caption = Markup("<figcaption><b>Figure {}</b> {}{}</figcaption>").format(self.figures, label, mark)
        return Markup("<figure>{}{}</figure>").format(card, caption)

    def markdown(self, source: str, stem: str) -> Markup:
        """Markdown as HTML. Raw HTML shows as text; headings go one level down and into the contents."""
        import mistune
        from bs4 import BeautifulSoup

        render = mistune.create_markdown(escape=True, plugins=["table", "strikethrough", "math"])
        soup = BeautifulSoup(render(source), "html.parser")
        for tag in soup.find_all(class_="math"):
            tag.string = re.sub(r"^\s*(\\\(|\$\$)\s*|\s*(\\\)|\$\$)\s*$", "", tag.get_text())
        for tag in soup.find_all("img"):
            tag.replace_with(f"[picture: {tag.get('alt') or 'no description'}]")
        for tag in soup.find_all("a"):
            href = tag.get("href", "")
            target = self.links.get(href.split("#")[0].rsplit("/", 1)[-1])
            if target:
                tag["href"] = f"#{target}"
            elif re.match(r"https?://", href):
                tag["rel"] = "noopener noreferrer"
            else:
                tag.unwrap()
        for tag in soup.find_all(re.compile("^h[1-6]$")):
            level, text = int(tag.name[1]), tag.get_text(" ", strip=True)
            if level == 1 and self.title is None:
                self.title = self.heading = text
                tag.decompose()
                continue
            tag.name = f"h{min(max(level, 2) + 1, 6)}"
            tag["id"] = self.anchor(f"{stem}-{text}")
            self.heading = text
            if level <= 2:
                self.headings.append({"anchor": tag["id"], "title": text})
        paragraphs = [p.get_text(" ", strip=True) for p in soup.find_all("p")]
        self.paragraph = _shorten(paragraphs[-1]) if paragraphs else self.paragraph
        return Markup('<div class="prose">{}</div>').format(_finish(soup))

    def printed_html(self, html: str) -> Markup:
        """HTML that a cell printed, cleaned: tables stay, with the harmless part of a Styler's colours."""
        from bs4 import BeautifulSoup

        soup = BeautifulSoup(html, "html.parser")
        css = "\n".join(tag.get_text() for tag in soup.find_all("style"))
        for tag in soup.find_all(_DROPPED_WHOLE):
            tag.decompose()
        for tag in soup.find_all(["img", "a"]):
            tag.unwrap()
        renamed: set[int] = set()
        for table in soup.find_all("table", id=re.compile(r"^T_\w+$")):
            # pandas draws this id at random; a count keeps the page the same from run to run.
            self.styled += 1
            old, new = table["id"], f"T{self.styled}"
            for tag in [table, *table.find_all(id=re.compile(rf"^{re.escape(old)}"))]:
                tag["id"] = new + tag["id"].removeprefix(old)
                renamed.add(id(tag))
            css = re.sub(rf"#{re.escape(old)}(?![0-9a-zA-Z])", f"#{new}", css)
            table["class"] = [*table.get("class", []), "styled"]
        for tag in soup.find_all(id=True):
            if id(tag) not in renamed:
                del tag["id"]
        self.styles += _rules(css)
        return _finish(soup)


def _finish(soup: BeautifulSoup) -> Markup:
    """Make tables scroll and line up their numbers, then let only harmless tags and attributes through."""
    import bleach

    for table in soup.find_all("table"):
        rows = [row.find_all("td", recursive=False) for row in table.find_all("tr")]
        rows = [row for row in rows if row]
        for row in rows:
            for cell in row:
                if _NUMBER.match(cell.get_text(strip=True)):
                    cell["class"] = [*cell.get("class", []), "num"]
        for header in table.select("thead tr"):
            names = header.find_all("th")
            for back, cell in enumerate(reversed(names), start=1):
                column = [row[-back] for row in rows if len(row) >= back]
                plain = not any(name.get("colspan") for name in names)
                if plain and column and all("num" in c.get("class", []) for c in column):
                    cell["class"] = [*cell.get("class", []), "num"]
        table.attrs.pop("border", None)
        box = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Table"}
        table.wrap(soup.new_tag("div", attrs=box))
    clean = bleach.clean(
        str(soup),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        protocols={"http", "https"},
        strip=True,
        css_sanitizer=SimpleNamespace(sanitize_css=_declarations),
    )
    return Markup(clean)


def _rules(css: str) -> list[str]:
    """Rules of a style sheet that touch one renamed table only and fetch nothing."""
    import tinycss2

    rules = []
    for rule in tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True):
        if rule.type != "qualified-rule":
            continue
        selectors = [s.strip() for s in tinycss2.serialize(rule.prelude).split(",")]
        selectors = [s for s in selectors if _SELECTOR.match(s)]
        body = _declarations(tinycss2.serialize(rule.content))
        if selectors and body:
            rules.append(f"{', '.join(selectors)} {{ {body} }}")
    return rules


def _declarations(style: str) -> str:
    """The declarations of `style` with a known property and no function that could fetch something."""
    import tinycss2

    kept = []
    for item in tinycss2.parse_declaration_list(style, skip_comments=True, skip_whitespace=True):
        if item.type != "declaration" or not _CSS_PROPERTIES.match(item.lower_name):
            continue
        tokens = list(item.value)
        functions = {t.lower_name for t in tokens if t.type == "function"}
        tokens += [inner for t in tokens if t.type == "function" for inner in t.arguments]
        functions |= {t.lower_name for t in tokens if t.type == "function"}
        value = tinycss2.serialize(item.value).strip()
        fine = all(t.type not in ("url", "error", "{} block") for t in tokens) and functions <= _CSS_FUNCTIONS
        if fine and not re.search(r"[<>\\@]", value):
            kept.append(f"{item.lower_name}: {value}{' !important' if item.important else ''};")
    return " ".join(kept)


def _stream(streams: dict[str, str]) -> list[Markup]:
    """What was printed as a quiet block, messages folded away; empties `streams`."""
    out, messages = (_plain(streams.get(k, "")).strip("\n") for k in ("stdout", "stderr"))
    streams.clear()
    parts = [Markup('<pre class="out">{}</pre>').format(out)] if out.strip() else []
    if messages.strip():
        parts.append(_folded("log", "Messages", messages))
    return parts


def _folded(kind: str, label: str, content: str) -> Markup:
    """A closed block. Text and highlighted code stand in a ``<pre>``, other markup as it is."""
    content = content if kind == "settings" else Markup("<pre>{}</pre>").format(content)
    return Markup('<details class="{}"><summary>{}</summary>{}</details>').format(kind, label, content)


def _plain(text: str) -> str:
    """Text as a terminal would leave it, without colour codes, progress bars and names of temporary files."""
    text = _CELL_FILE.sub("cell", _ANSI.sub("", str(text)))
    lines = (line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
    return "\n".join(line for line in lines if not _PROGRESS.search(line))


def _shorten(text: str, limit: int = 240) -> str:
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " …"


def _assignments(source: str) -> dict[str, str]:
    """``{name: value as written}`` of the assignments in a parameters cell."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return {}
    found = {}
    for s in statements:
        targets = s.targets if isinstance(s, ast.Assign) else [s.target] if isinstance(s, ast.AnnAssign) else []
        if targets and isinstance(targets[0], ast.Name) and s.value is not None:
            found[targets[0].id] = ast.unparse(s.value)
    return found


def _highlight(source: str) -> Markup:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip("\n"))
