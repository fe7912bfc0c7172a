"""The synthetic demo corpus: three data sets with the layout and the troubles of the real ones.

Nothing here is recorded. Each clip blends the sound and the words of a class with those of a class
it is easily mistaken for; the more even the blend, the more often the label falls on the other
side and the lower the annotators' confidence. Which classes are blended how often follows the
mean confidence per class of BSD10k v1.2, crowd labels of BSD35k-CS err at the published rates.
Every clip is drawn from ``default_rng([seed, corpus, index, ...])``: same settings, same bytes.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from .errors import HacError, first_few
from .io import read_json, sha256_file, sha256_text, write_csv, write_json, write_text
from .synth_files import Clip, render_missing
from .synth_plan import plans
from .taxonomy import CLASSES

#: Raise by one whenever the same settings give other bytes.
VERSION = 2

README = """SYNTHETIC DEMO CORPUS

Every sound and every text in this folder was made by a program (hac_utils/synth.py, version {version},
seed {seed}). Nothing was recorded and nobody labelled it. It has the layout of {name} and imitates
its troubles, so that the whole analysis runs without a download. Numbers computed from it say
nothing about the real data set.
"""


def _names_hash(root: Path) -> str:
    """Hash of the sorted audio file names; half-written files start with a dot."""
    names = sorted(p.relative_to(root).as_posix() for p in root.glob("*/audio/[!.]*"))
    return sha256_text("\n".join(names))


def generate(
    root: Path,
    *,
    clips: int = 1400,
    noisy: int = 1100,
    evaluation: int = 253,
    seed: int = 0,
    workers: int = 2,
) -> dict:
    """Write the synthetic demo corpus under `root`, or complete it; returns the content of ``corpus.json``.

    Parameters
    ----------
    root : Path
        Gets ``BSD10k/``, ``BSD35k-CS/``, ``eval/``, ``hidden/`` (the generator's own truth) and, last,
        ``corpus.json``.
    clips, noisy, evaluation : int
        Clips in the three sets; at least 23, 0 and 0.
    workers : int
        Processes; the bytes do not depend on it.

    Raises
    ------
    HacError
        Too few clips, a `root` that holds other data, no space, or a worker that died.
    """
    root = Path(root)
    if clips < len(CLASSES) or noisy < 0 or evaluation < 0:
        raise HacError(
            f"a corpus of {clips} + {noisy} + {evaluation} clips",
            "clips, noisy, evaluation",
            f"give at least {len(CLASSES)}, 0 and 0",
        )
    settings = {"clips": clips, "noisy": noisy, "evaluation": evaluation, "seed": seed}
    done, begun = root / "corpus.json", root / "corpus.begun.json"
    key = {"settings": settings, "version": VERSION}
    if done.exists():
        corpus = read_json(done)
        if {k: corpus.get(k) for k in key} == key and _complete(root, corpus):
            return corpus
    _make_room(root, key, done, begun)
    write_json(begun, key)
    done.unlink(missing_ok=True)
    plan, tables = plans(clips, noisy, evaluation, seed)
    _render_all(root, plan, workers)
    for path, frame in tables.items():
        write_csv(root / path, frame)
    for name in ("BSD10k", "BSD35k-CS", "eval"):
        write_text(root / name / "README.md", README.format(version=VERSION, seed=seed, name=name))
    corpus = key | {
        "name": "synthetic demo corpus",
        "counts": {"BSD10k": clips, "BSD35k-CS": noisy, "eval": evaluation},
        "audio_names_sha256": _names_hash(root),
        "metadata_sha256": {path: sha256_file(root / path) for path in sorted(tables)},
    }
    write_json(done, corpus)
    begun.unlink()
    return corpus


def _complete(root: Path, corpus: dict) -> bool:
    tables = corpus.get("metadata_sha256", {})
    whole = all((root / path).exists() and sha256_file(root / path) == digest for path, digest in tables.items())
    return whole and _names_hash(root) == corpus.get("audio_names_sha256")


def _make_room(root: Path, key: dict, done: Path, begun: Path) -> None:
    """Keep audio of the same settings, clear audio of other settings, refuse a folder that is not ours."""
    present = [p for name in ("BSD10k", "BSD35k-CS", "eval", "hidden") if (p := root / name).exists()]
    marker = next((p for p in (begun, done) if p.exists()), None)
    if marker is None:
        if present:
            raise HacError(
                f"the folder holds {first_few([p.name for p in present])}, not written by this generator",
                str(root),
                "choose an empty folder",
            )
    else:
        old = read_json(marker)
        if {k: old.get(k) for k in key} != key:
            for path in sorted(root.glob("*/audio/*")):
                if path.parent.parent in present:
                    path.unlink()


def _render_all(root: Path, plan: list[Clip], workers: int) -> None:
    todo = [clip for clip in plan if not (root / clip.path).exists()]
    batches = [todo[i : i + 16] for i in range(0, len(todo), 16)]
    with tqdm(total=len(todo), desc="synthetic demo corpus", unit="clip", disable=None) as bar:
        if workers <= 1 or len(batches) <= 1:
            for batch in batches:
                bar.update(render_missing(str(root), batch))
            return
        pool = ProcessPoolExecutor(min(workers, len(batches)), mp_context=multiprocessing.get_context("spawn"))
        try:
            for future in as_completed([pool.submit(render_missing, str(root), batch) for batch in batches]):
                bar.update(future.result())
        except BrokenProcessPool:
            raise HacError(
                "a worker process died while making the synthetic demo corpus",
                str(root),
                "run it again with one worker; finished clips are kept",
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
