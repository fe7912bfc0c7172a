"""Results are saved before they are said: JSON per notebook, and the manifest that closes a run."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import HacError
from .io import read_json, sha256_file, write_json
from .paths import RunPaths

PACKAGES = (
    "hac-utils numpy pandas pyarrow scipy scikit-learn matplotlib seaborn torch transformers "
    "laion-clap hear21passt papermill jupyterlab"
).split()


def save_results(paths: RunPaths, notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    """Write ``results/<notebook>.json`` and return it as read back, so what is shown is what was saved."""
    target = paths.results / f"{notebook}.json"
    write_json(target, values)
    return read_json(target)


def load_results(paths: RunPaths, notebook: str) -> dict[str, Any]:
    """Read the results of an earlier notebook."""
    target = paths.results / f"{notebook}.json"
    if not target.exists():
        raise HacError(
            f"no results of notebook {notebook}",
            paths.relative(target),
            f"papermill notebooks/{notebook}.ipynb out.ipynb, or make report",
        )
    return read_json(target)


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that decide the numbers; absent ones are left out."""
    out = {}
    for name in PACKAGES:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out


def hash_files(paths: RunPaths, files: Iterable[Path]) -> dict[str, str]:
    """Relative name -> SHA-256, sorted by name."""
    return {name: sha256_file(f) for name, f in sorted((paths.relative(f), f) for f in files)}
