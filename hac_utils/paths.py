"""Where a run keeps its files: everything follows from the checkout and the run's name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import HacError


def checkout() -> Path:
    """The folder that holds ``notebooks/`` and ``configs/``: ``$HAC_ROOT``, or found upwards from here."""
    given = os.environ.get("HAC_ROOT")
    start = Path(given) if given else Path.cwd()
    for folder in [start, *start.parents, Path(__file__).resolve().parent.parent]:
        if (folder / "notebooks").is_dir() and (folder / "configs").is_dir():
            return folder.resolve()
    raise HacError(
        "no checkout with notebooks/ and configs/ here",
        str(start.resolve()),
        "cd into the clone, or set HAC_ROOT",
    )


@dataclass(frozen=True)
class RunPaths:
    """Folders of one run, ``runs/NAME/`` and ``figures/NAME/``."""

    name: str
    root: Path

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise HacError(
                f"a run cannot be called {self.name!r}",
                "NAME",
                "use letters, digits, '.', '_' and '-', at most 64",
            )

    @property
    def run(self) -> Path:
        return self.root / "runs" / self.name

    @property
    def figures(self) -> Path:
        return self.root / "figures" / self.name

    @property
    def data(self) -> Path:
        return self.run / "data"

    @property
    def notebooks(self) -> Path:
        return self.run / "notebooks"

    @property
    def results(self) -> Path:
        return self.run / "results"

    @property
    def predictions(self) -> Path:
        return self.run / "predictions"

    @property
    def embeddings(self) -> Path:
        return self.run / "embeddings"

    @property
    def splits(self) -> Path:
        return self.run / "splits"

    @property
    def submissions(self) -> Path:
        return self.run / "submissions"

    @property
    def manifests(self) -> Path:
        return self.run / "manifests"

    @property
    def report(self) -> Path:
        return self.run / "report.html"

    def relative(self, path: Path) -> str:
        """`path` as seen from the checkout, with ``/``; absolute when it lies outside."""
        path = Path(path).absolute()
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()
