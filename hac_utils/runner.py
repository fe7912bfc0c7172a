"""Runs: opens one inside a notebook, executes notebooks headless, and closes each with a manifest."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .config import Profile, read_profile
from .datasets import find_metadata
from .errors import HacError, did_you_mean, first_few
from .io import (
    read_json,
    read_npy,
    read_table,
    sha256_file,
    sha256_text,
    write_json,
    write_npy,
    write_parquet,
)
from .paths import RunPaths, checkout
from .results import hash_files, load_results, package_versions, save_results
from .schema import read_predictions, write_predictions
from .splits import split_hash

#: The DAG: notebook -> notebooks whose files it reads. The Makefile holds the same arrows (a test compares).
NOTEBOOKS: dict[str, tuple[str, ...]] = {
    "01_extraction": (),
    "02_heads": ("01_extraction",),
    "03_fine_tuning": ("01_extraction",),
    "04_pseudo_labels": ("02_heads", "03_fine_tuning"),
    "05_ensemble": ("04_pseudo_labels",),
    "06_label_ambiguity": ("05_ensemble",),
    "07_ablations": ("02_heads",),
}

SYNTHETIC_NOTE = "synthetic demo corpus"


class Run:
    """One notebook's work in one run; made by :func:`open_run`.

    Reading and writing through it fills the manifest's inputs and outputs.
    """

    def __init__(self, notebook: str, profile: Profile, paths: RunPaths, parameters: dict[str, Any]) -> None:
        self.notebook, self.profile, self.paths, self.parameters = notebook, profile, paths, parameters
        self.inputs: set[Path] = set()
        self.outputs: set[Path] = set()
        self._memory = _PeakMemory()
        self._start = time.perf_counter()

    @property
    def note(self) -> str:
        """What every figure must say: "synthetic demo corpus", or ""."""
        return SYNTHETIC_NOTE if self.profile.synthetic else ""

    def _in(self, path: Path) -> Path:
        if not path.exists():
            raise HacError(
                "a file of an earlier notebook is missing",
                self.paths.relative(path),
                f"make report NAME={self.paths.name}",
            )
        if path not in self.outputs:
            self.inputs.add(path)
        return path

    def _out(self, path: Path) -> Path:
        self.outputs.add(path)
        return path

    # tables, arrays, predictions, splits: one folder each under runs/NAME/
    def table(self, name: str) -> pd.DataFrame:
        return read_table(self._in(self.paths.run / "tables" / f"{name}.parquet"))

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        write_parquet(self._out(self.paths.run / "tables" / f"{name}.parquet"), frame)

    def array(self, name: str) -> np.ndarray:
        return read_npy(self._in(self.paths.embeddings / f"{name}.npy"))

    def write_array(self, name: str, array: np.ndarray) -> None:
        write_npy(self._out(self.paths.embeddings / f"{name}.npy"), array)

    def predictions(self, name: str) -> pd.DataFrame:
        return read_predictions(self._in(self.paths.predictions / f"{name}.parquet"))

    def write_predictions(self, name: str, frames: Sequence[pd.DataFrame]) -> None:
        write_predictions(self._out(self.paths.predictions / f"{name}.parquet"), pd.concat(frames, ignore_index=True))

    def text(self, split: str, fold: int, role: str) -> np.ndarray:
        """Text vectors of a corpus: one array for a frozen encoder, else the one fitted on this fold's training part."""
        frozen = self.paths.embeddings / f"text_{role}.npy"
        return self.array(frozen.stem if frozen.exists() else f"text_{split}_{fold}_{role}")

    def split(self, name: str) -> pd.DataFrame:
        return read_table(self._in(self.paths.splits / f"{name}.parquet"))

    def write_split(self, name: str, split: pd.DataFrame) -> str:
        write_parquet(self._out(self.paths.splits / f"{name}.parquet"), split)
        return split_hash(split)

    def results_of(self, notebook: str) -> dict[str, Any]:
        self._in(self.paths.results / f"{notebook}.json")
        return load_results(self.paths, notebook)

    def save_results(self, values: dict[str, Any]) -> dict[str, Any]:
        """Write this notebook's results JSON; returns it as read back. ``headline`` is printed by ``hac run``."""
        self._out(self.paths.results / f"{self.notebook}.json")
        return save_results(self.paths, self.notebook, values)

    def figure(self, fig: Any, name: str) -> Any:
        """Save a figure as PNG and SVG under ``figures/NAME/`` and return the saved picture for display."""
        import matplotlib.pyplot as plt
        from IPython.display import Image

        from .plotting import save

        save(fig, self.paths.figures, name, note=self.note)
        for suffix in (".png", ".svg"):
            self._out(self.paths.figures / f"{name}{suffix}")
        plt.close(fig)
        return Image(filename=str(self.paths.figures / f"{name}.png"), width=round(fig.get_figwidth() * 100))

    @property
    def kept(self) -> Path:
        """Folder of the trainings that this notebook has finished so far; gone when it is through."""
        return self.paths.run / "kept" / self.notebook

    def finish(self) -> None:
        """Write the manifest, last and atomically. No manifest means that the notebook did not finish."""
        document = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "profile": dataclasses.asdict(self.profile),
            "seeds": {"heads": self.profile.seeds, "fine_tuning": self.profile.tuning_seeds},
            "settings": _settings_hash(self.profile, self.parameters),
            "inputs": hash_files(self.paths, self.inputs),
            "outputs": hash_files(self.paths, self.outputs),
            "packages": package_versions(),
            "commit": _commit(self.paths.root),
            "run": {
                "wall_s": round(time.perf_counter() - self._start, 1),
                "peak_memory_mb": round(self._memory.stop() / 2**20),
            },
        }
        shutil.rmtree(self.kept, ignore_errors=True)
        target = os.environ.get("HAC_MANIFEST") or self.paths.manifests / f"{self.notebook}.json"
        write_json(target, document)


class _PeakMemory:
    """Largest memory of this process and its children together, sampled four times a second.

    On Linux the sum of proportional set sizes: a page that several processes share counts once.
    """

    def __init__(self) -> None:
        import psutil

        self._process, self._peak, self._done = psutil.Process(), 0, threading.Event()
        self._gone = (psutil.NoSuchProcess, psutil.AccessDenied)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.is_set():
            total = 0
            with contextlib.suppress(*self._gone):
                for p in [self._process, *self._process.children(recursive=True)]:
                    with contextlib.suppress(*self._gone):
                        info = p.memory_full_info()
                        total += getattr(info, "pss", info.rss)
            self._peak = max(self._peak, total)
            self._done.wait(0.25)

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._peak


def _commit(root: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _settings_hash(profile: Profile, parameters: dict[str, Any]) -> str:
    shared = {k: str(parameters.get(k, "")) for k in ("data", "name")}
    return sha256_text(repr(dataclasses.asdict(profile)) + repr(shared))


def _refuse_unknown_parameters(notebook: str) -> None:
    """papermill only warns about a parameter the notebook does not know; here it is an error.

    Looks at the executed cells: papermill puts its values in a cell that begins ``# Parameters``.
    """
    import IPython

    shell = IPython.get_ipython()
    if shell is None:
        return
    for cell in shell.user_ns.get("In", []):
        if cell.startswith("# Parameters\n"):
            given = [t.id for node in ast.parse(cell).body if isinstance(node, ast.Assign) for t in node.targets]
            check_parameters(notebook, given)


def known_parameters(notebook: str) -> list[str]:
    """Names in the notebook's cell tagged ``parameters``."""
    import papermill

    return list(papermill.inspect_notebook(str(checkout() / "notebooks" / f"{notebook}.ipynb")))


def check_parameters(notebook: str, given: Sequence[str]) -> None:
    """Raise HacError for a parameter that the notebook does not know."""
    known = known_parameters(notebook)
    for name in given:
        if name not in known:
            raise HacError(
                f"notebook {notebook} has no parameter {name!r}",
                f"notebooks/{notebook}.ipynb",
                did_you_mean(name, known),
            )


def load_profile(profile: str, *, data: str = "", name: str = "") -> tuple[Profile, RunPaths]:
    """The named profile from ``configs/`` (with `data` put in) and the folders of the run."""
    root = checkout()
    settings = read_profile(root / "configs" / f"{profile}.yaml")
    if data:
        if settings.kind == "demo":
            raise HacError(
                f"profile {profile!r} makes its own corpus and takes no data folder",
                f"DATA={data}",
                f"make report PROFILE=folder DATA={data}",
            )
        settings = dataclasses.replace(settings, data=str((root / data).resolve()))
    if settings.kind == "folder" or settings.data:
        if not settings.data:
            raise HacError(
                f"profile {profile!r} needs a dataset folder",
                f"configs/{profile}.yaml",
                "make report PROFILE=folder NAME=mine DATA=path/to/folder",
            )
        find_metadata(settings.data)
    return settings, RunPaths(name or profile, root)


def open_run(notebook: str, *, profile: str, name: str = "", data: str = "", **parameters: Any) -> Run:
    """Start a notebook's work: profile, folders, and the files of earlier notebooks (run first if missing)."""
    if notebook not in NOTEBOOKS:
        raise HacError(f"no notebook {notebook!r}", "open_run", did_you_mean(notebook, NOTEBOOKS))
    _refuse_unknown_parameters(notebook)
    settings, paths = load_profile(profile, data=data, name=name)
    given = {"profile": profile, "name": name, "data": data, **parameters}
    for upstream in NOTEBOOKS[notebook]:
        manifest = paths.manifests / f"{upstream}.json"
        if not manifest.exists() or read_json(manifest)["settings"] != _settings_hash(settings, given):
            print(f"{upstream} has not run with these settings yet: running it first")
            command = [sys.executable, "-m", "hac_utils.cli", "run", upstream, "--profile", profile]
            command += ["--name", name] if name else []
            command += ["--data", data] if data else []
            done = subprocess.run(command, cwd=paths.root, capture_output=True, text=True, check=False)
            print(done.stdout, end="")
            if done.returncode:
                raise HacError(
                    f"notebook {upstream} failed: {done.stderr.strip()[-2000:]}",
                    f"notebooks/{upstream}.ipynb",
                    "fix that first",
                )
    return Run(notebook, settings, paths, given)


def execute(
    notebook: str, *, profile: str, name: str = "", data: str = "", parameters: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Run one notebook headless through papermill; returns its manifest.

    The executed copy goes to ``runs/NAME/notebooks/``; the manifest appears last, when all else is in place.

    Raises
    ------
    HacError
        Unknown notebook or parameter, or a HacError raised in the notebook.
    """
    import papermill

    if notebook not in NOTEBOOKS:
        raise HacError(f"no notebook {notebook!r}", "notebooks/", did_you_mean(notebook, NOTEBOOKS))
    values = {"profile": profile, "name": name, "data": data, **(parameters or {})}
    check_parameters(notebook, list(values))
    _, paths = load_profile(profile, data=data, name=name)
    pending = paths.manifests / f".{notebook}.pending.json"
    working = paths.notebooks / f".{notebook}.running.ipynb"
    for folder in (paths.manifests, paths.notebooks):
        folder.mkdir(parents=True, exist_ok=True)
    pending.unlink(missing_ok=True)
    os.environ["HAC_MANIFEST"] = str(pending)
    os.environ["HAC_ROOT"] = str(paths.root)
    try:
        papermill.execute_notebook(
            str(paths.root / "notebooks" / f"{notebook}.ipynb"),
            str(working),
            parameters=values,
            kernel_name="python3",
            cwd=str(paths.root),
            progress_bar=False,
            log_output=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # else each kernel warns about local TCP
        )
    except papermill.PapermillExecutionError as e:
        failed = paths.notebooks / f"{notebook}.failed.ipynb"
        os.replace(working, failed)
        if e.ename == "HacError":
            raise HacError(*_parse_error(e.evalue)) from None
        raise
    finally:
        del os.environ["HAC_MANIFEST"]
    if not pending.exists():
        raise RuntimeError(f"notebook {notebook} ended without writing its manifest")
    (paths.notebooks / f"{notebook}.failed.ipynb").unlink(missing_ok=True)
    os.replace(working, paths.notebooks / f"{notebook}.ipynb")
    target = paths.manifests / f"{notebook}.json"
    os.replace(pending, target)
    return read_json(target)


def _parse_error(text: str) -> tuple[str, str, str]:
    """``str(HacError)`` back into what, where, fix."""
    what, where, fix = [], "", ""
    for line in text.splitlines():
        if line.startswith("where: "):
            where = line[7:]
        elif line.startswith("fix:   "):
            fix = line[7:]
        else:
            what.append(line.removeprefix("error: "))
    return "\n".join(what), where, fix


def fingerprint(*, profile: str, name: str = "", data: str = "") -> bool:
    """Write ``runs/NAME/inputs.json``, what the whole run depends on besides code; True when it changed.

    Make compares its time stamp: another DATA folder, an edited table, or an added sound make
    everything behind it stale; nothing changed leaves the file untouched.
    """
    settings, paths = load_profile(profile, data=data, name=name)
    document: dict[str, Any] = {"profile": profile, "settings": dataclasses.asdict(settings)}
    for role, folder in (
        ("data", settings.data),
        ("noisy", settings.noisy),
        ("evaluation", settings.evaluation),
    ):
        if not folder:
            continue
        files = sorted((Path(folder) / "audio").iterdir()) if (Path(folder) / "audio").is_dir() else []
        listing = "\n".join(f"{f.name},{s.st_size},{s.st_mtime_ns}" for f in files for s in [f.lstat()])
        document[role] = {
            "metadata": sha256_file(find_metadata(folder)),
            "audio": sha256_text(listing),
            "files": len(files),
        }
    target = paths.run / "inputs.json"
    if target.exists() and read_json(target) == document:
        return False
    write_json(target, document)
    return True


def collect(paths: RunPaths) -> tuple[dict[str, Any], list[str]]:
    """Manifests of a run, and the notebooks that have none."""
    found = {n: read_json(paths.manifests / f"{n}.json") for n in NOTEBOOKS if (paths.manifests / f"{n}.json").exists()}
    missing = [n for n in NOTEBOOKS if n not in found]
    if not found:
        raise HacError(
            "no notebook of this run has finished",
            paths.relative(paths.run),
            f"make report NAME={paths.name}; missing: {first_few(missing, 7)}",
        )
    return found, missing
