"""Heads trained on the embeddings of a run: what notebook 02 and ``hac train`` share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import catalog, protocol, schema, splits, systems, tables
from .errors import HacError, did_you_mean, first_few
from .runner import Run, open_run

#: Protocol -> the split it uses; "report5" has the official folds, but the scored part chooses the epoch.
PROTOCOLS = {"official5": "official5", "report5": "official5", "uploader5": "uploader5", "fixed": "fixed"}


@dataclasses.dataclass(frozen=True)
class Bench:
    """A run's table, folds and embeddings, ready for :func:`protocol.cross_fit`."""

    run: Run
    dev: pd.DataFrame
    audio: dict[str, np.ndarray] | None
    roles: list[str]

    @classmethod
    def of(cls, run: Run) -> Bench:
        extraction = run.results_of("01_extraction")
        roles = list(extraction["roles"])
        audio = {role: run.array(f"audio_{role}") for role in roles} if extraction["has_audio"] else None
        return cls(run, run.table("dev"), audio, roles)

    @property
    def words(self) -> dict[str, str]:
        """Systems in words, for tables of this run: without sounds, "sound + text" is text."""
        return {
            n: w if self.audio is not None else w.replace("sound + text", "text") for n, w in systems.SYSTEMS.items()
        }

    def folds(self, name: str) -> list[splits.Fold]:
        """Folds of a protocol."""
        if name not in PROTOCOLS:
            raise HacError(f"no protocol {name!r}", "protocol", did_you_mean(name, PROTOCOLS))
        folds = list(splits.folds_of(self.run.split(PROTOCOLS[name]), self.dev))
        return [splits.report_fold(f) for f in folds] if name == "report5" else folds

    def build(self, names: Sequence[str], class_vectors: np.ndarray | None = None) -> dict[str, Any]:
        profile = self.run.profile
        width = None if self.audio is None else self.audio["dev"].shape[1]
        return systems.build(names, profile.head, profile.hatr, audio_dim=width, class_vectors=class_vectors)

    def baselines(self) -> tuple[dict[str, Any], str]:
        """The profile's baselines, and why zero-shot CLAP is not among them ("" where it is, or was not asked for)."""
        names = list(self.run.profile.baselines)
        if "zero-shot" not in names:
            return self.build(names), ""
        reason = "the audio embeddings are not CLAP's"
        if self.run.profile.audio_encoder in ("clap", "clap-provided") and self.audio is not None:
            try:
                return self.build(names, systems.zero_shot_vectors(catalog.text_encoder("clap"))), ""
            except HacError as e:
                reason = f"{e.what} ({e.fix})"
        return self.build([n for n in names if n != "zero-shot"]), f"zero-shot CLAP is left out: {reason}"

    def fit(
        self,
        estimators: dict[str, Any],
        name: str,
        seeds: Sequence[int],
        *,
        folds: Sequence[splits.Fold] | None = None,
        elsewhere: bool = False,
        without_text: bool = False,
    ) -> protocol.CrossFit:
        """Cross-fit systems under a protocol.

        Parameters
        ----------
        folds : instead of the protocol's own
        elsewhere : predict the other corpora too
        without_text : predict the scored clips also with the text embedding set to zero (variant "without text")
        """
        others = [r for r in self.roles if r != "dev"] if elsewhere else []

        def inputs(system: str, fold: splits.Fold) -> dict[str, np.ndarray]:
            text = {r: self.run.text(PROTOCOLS[name], fold.fold, r) for r in ["dev", *others]}
            audio = self.audio
            if without_text:
                text["without text"] = np.zeros_like(text["dev"])
                audio = {**audio, "without text": audio["dev"]} if audio else None
            return systems.inputs(system, audio, text)

        return protocol.cross_fit(
            estimators,
            inputs,
            self.dev,
            self.folds(name) if folds is None else folds,
            seeds,
            extra_ids={r: self.run.table(r)["sound_id"].tolist() for r in others},
            variants=("without text",) if without_text else (),
            workers=self.run.profile.workers,
            keep=self.run.kept,
            desc=f"{', '.join(estimators)}; {name}",
        )


def train_heads(
    names: Sequence[str], protocol_name: str, seeds: Sequence[int], *, profile: str, name: str = "", data: str = ""
) -> tuple[pd.DataFrame, list[Path]]:
    """Train systems one after another; each one's predictions are written when it is done.

    Returns
    -------
    table : as in Table 1, for reading; the first system is the reference
    files : ``runs/NAME/predictions/SYSTEM.parquet``
    """
    if protocol_name not in PROTOCOLS:
        raise HacError(f"no protocol {protocol_name!r}", "--protocol", did_you_mean(protocol_name, PROTOCOLS))
    bench = Bench.of(open_run("02_heads", profile=profile, name=name, data=data))
    estimators = bench.build(names)
    if not estimators:
        raise HacError(f"no sounds in this run, which {first_few(list(names))} need", "--heads", "text, logistic")
    done, files = [], []
    for system, estimator in estimators.items():
        done.append(bench.fit({system: estimator}, protocol_name, seeds).scored)
        files.append(bench.run.paths.predictions / f"{system.replace(' ', '-')}.parquet")
        schema.write_predictions(files[-1], done[-1])
    table = tables.summarise(
        pd.concat(done, ignore_index=True),
        bench.dev,
        over="seed" if protocol_name == "fixed" else "fold",
        order=list(estimators),
        reference=next(iter(estimators)) if len(estimators) > 1 else "",
    )
    return tables.pretty(table, bench.words), files
