"""The console script ``hac``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import HacError
from .io import dump_json

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Heterogeneous audio classification, DCASE 2026 Task 1.",
)

weights_app = typer.Typer(no_args_is_help=True, help="Published model weights: fetch them, show where they are.")
app.add_typer(weights_app, name="weights")
data_app = typer.Typer(no_args_is_help=True, help="Fetch, check and describe data sets.")
app.add_typer(data_app, name="data")

ProfileOption = Annotated[str, typer.Option("--profile", help="Profile in configs/: demo, folder.")]
NameOption = Annotated[
    str,
    typer.Option("--name", help="Run name: outputs go to runs/NAME and figures/NAME. Default: the profile's name."),
]
DataOption = Annotated[str, typer.Option("--data", help="Dataset folder in the BSD10k layout (profile folder).")]


@app.command()
def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="CSV or parquet with an id and a class column, or a predictions table.")
    ],
    truth: Annotated[Path, typer.Option("--truth", help="CSV or parquet with an id and a class column.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, in percent.")] = False,
    id_column: Annotated[str, typer.Option(help="Id column of the predictions; found by name if not given.")] = "",
    class_column: Annotated[str, typer.Option(help="Class column of the predictions.")] = "",
    truth_id_column: Annotated[str, typer.Option(help="Id column of the truth.")] = "",
    truth_class_column: Annotated[str, typer.Option(help="Class column of the truth.")] = "",
    system: Annotated[str, typer.Option(help="Which system of a predictions table.")] = "",
    seed: Annotated[int | None, typer.Option(help="Which seed of a predictions table.")] = None,
    subset: Annotated[bool, typer.Option(help="Score only ids that both files hold.")] = False,
) -> None:
    """Score predictions: official and strict hP, hR, hF, and hA."""
    from .evaluation import evaluate_files, format_evaluation

    result = evaluate_files(
        predictions,
        truth,
        id_column=id_column,
        class_column=class_column,
        truth_id_column=truth_id_column,
        truth_class_column=truth_class_column,
        system=system,
        seed=seed,
        subset=subset,
    )
    print(dump_json(result) if as_json else format_evaluation(result), end="" if as_json else "\n")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Predictions, in any form that evaluate reads.")],
    b: Annotated[Path, typer.Argument(help="Predictions of the other system for the same clips.")],
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Ids and classes; not needed when both files carry the same truth.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, in percent and points.")] = False,
    system_a: Annotated[str, typer.Option(help="Which system of the first predictions table.")] = "",
    system_b: Annotated[str, typer.Option(help="Which system of the second predictions table.")] = "",
    metric: Annotated[str, typer.Option(help="hF or hA.")] = "hF",
    cluster: Annotated[
        str, typer.Option(help="Column of the truth whose groups are drawn whole, where it exists; empty: clips only.")
    ] = "uploader",
    subset: Annotated[bool, typer.Option("--subset", help="Compare only the clips that all files hold.")] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    n_resamples: Annotated[int, typer.Option(min=1, help="Resamples of the bootstrap.")] = 10_000,
) -> None:
    """Compare two systems on the same clips: difference, interval, verdict, and gains by class."""
    from .compare import compare_files, format_comparison

    result = compare_files(
        a,
        b,
        truth,
        system_a=system_a,
        system_b=system_b,
        metric=metric,
        cluster=cluster,
        subset=subset,
        seed=seed,
        n_resamples=n_resamples,
    )
    print(dump_json(result) if as_json else format_comparison(result), end="" if as_json else "\n")


@app.command()
def train(
    heads: Annotated[
        str, typer.Option("--heads", help="Systems, by commas: audio, text, concat, gated, hatr, logistic, …")
    ] = "audio,text,concat,gated",
    protocol: Annotated[
        str, typer.Option(help="official5, uploader5, fixed, or report5 (epoch chosen on the scored fold).")
    ] = "official5",
    seeds: Annotated[str, typer.Option(help="By commas.")] = "0,1,2",
    profile: ProfileOption = "demo",
    name: NameOption = "",
    data: DataOption = "",
) -> None:
    """Train heads on a run's embeddings: runs/NAME/predictions/HEAD.parquet for each, and a table with verdicts."""
    from .training import train_heads

    try:
        numbers = [int(s) for s in seeds.split(",")]
    except ValueError:
        raise HacError(f"seeds {seeds!r}", "--seeds", "whole numbers by commas, for example 0,1,2") from None
    names = [h.strip().replace("-", " ") if h.strip() != "zero-shot" else h.strip() for h in heads.split(",")]
    table, files = train_heads(names, protocol, numbers, profile=profile, name=name, data=data)
    print(table.to_string(index=False))
    print("\n".join(str(f) for f in files))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A file in benchmarks/: heads, extract, embeddings, text.")],
) -> None:
    """Run a benchmark of the checkout; further arguments go to it (--help shows them)."""
    import subprocess

    from .errors import did_you_mean
    from .paths import checkout

    folder = checkout() / "benchmarks"
    known = sorted(p.stem for p in folder.glob("*.py"))
    if name not in known:
        raise HacError(f"no benchmark {name!r}", str(folder), did_you_mean(name, known))
    raise typer.Exit(
        subprocess.run([sys.executable, str(folder / f"{name}.py"), *context.args], check=False).returncode
    )


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="Notebook name, for example 02_heads.")],
    profile: ProfileOption = "demo",
    name: NameOption = "",
    data: DataOption = "",
) -> None:
    """Run one notebook headless and print one line about it."""
    from .io import read_json
    from .runner import NOTEBOOKS, execute, load_profile

    manifest = execute(notebook, profile=profile, name=name, data=data)
    _, paths = load_profile(profile, data=data, name=name)
    headline = read_json(paths.results / f"{notebook}.json").get("headline", "")
    number = list(NOTEBOOKS).index(notebook) + 1
    run_ = manifest["run"]
    print(
        f"[{number}/{len(NOTEBOOKS)}] {notebook:<20} {run_['wall_s']:6.1f} s  {run_['peak_memory_mb']:5d} MiB  {headline}",
        flush=True,
    )


@app.command()
def inputs(profile: ProfileOption = "demo", name: NameOption = "", data: DataOption = "") -> None:
    """Note what a run depends on (used by make)."""
    from .runner import fingerprint

    fingerprint(profile=profile, name=name, data=data)


@app.command()
def report(profile: ProfileOption = "demo", name: NameOption = "", data: DataOption = "") -> None:
    """Build runs/NAME/report.html from the executed notebooks."""
    from .report import build_report
    from .runner import collect, load_profile
    from .tables import report_facts

    settings, paths = load_profile(profile, data=data, name=name)
    manifests, _ = collect(paths)
    target = build_report(
        paths,
        title="Heterogeneous Audio Classification",
        subtitle=f"{settings.title} · run {paths.name}",
        synthetic=settings.synthetic,
        facts=report_facts(paths),
    )
    wall = sum(m["run"]["wall_s"] for m in manifests.values())
    peak = max(m["run"]["peak_memory_mb"] for m in manifests.values())
    print(f"report: {paths.relative(target)}   ({len(manifests)} notebooks, {wall:.0f} s, peak {peak} MiB)")


@app.command()
def extract(
    source: Annotated[Path, typer.Argument(help="Dataset folder, any folder of sounds, or a sound file.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the embedding stores.")] = Path("embeddings"),
    encoder: Annotated[
        str, typer.Option(help="logmel, clap, passt, minilm (texts only); clap-random and passt-random are untrained.")
    ] = "logmel",
    workers: Annotated[int, typer.Option(min=0, help="Decoding processes.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips encoded together.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Keep what is in the store already.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 3 if any sound failed.")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray (needs the dist extra).")] = "local",
    address: Annotated[
        str, typer.Option(help="Address of a Ray cluster; auto, or empty for one on this machine.")
    ] = "",
) -> None:
    """Embed sounds (and, with clap, the texts of a dataset folder); what is there already is kept."""
    from functools import partial

    import pandas as pd

    from . import catalog, datasets, distributed, templates
    from . import extract as engine_local
    from .errors import did_you_mean

    if engine not in ("local", "ray"):
        raise HacError(f"no engine {engine!r}", "--engine", did_you_mean(engine, ("local", "ray")))
    jobs: list[tuple[dict, str]] = []
    if encoder in catalog.AUDIO or encoder not in catalog.TEXT:
        model = catalog.audio_encoder(encoder, device)
        jobs.append((engine_local.sounds_in(source), "audio"))
    has_texts = source.is_dir() and datasets.has_metadata(source)
    if not jobs and not has_texts:
        raise HacError(f"{encoder} embeds texts, and there is no metadata here", str(source), "give a dataset folder")
    if encoder in catalog.TEXT and has_texts:
        frame = datasets.read_dataset(source).frame
        jobs.append((dict(zip(frame["sound_id"], templates.DEFAULT(frame), strict=True)), "text"))
    done = []
    for items, kind in jobs:
        build = partial(catalog.audio_encoder if kind == "audio" else catalog.text_encoder, encoder)
        if engine == "ray":
            done.append(
                distributed.extract(
                    items,
                    build,
                    out,
                    address=address,
                    device=device if device != "auto" else "cpu",
                    batch_size=batch_size,
                    resume=resume,
                )
            )
        else:
            done.append(
                engine_local.extract(
                    items,
                    model if kind == "audio" else build(device),
                    out,
                    workers=workers,
                    batch_size=batch_size,
                    resume=resume,
                )
            )
    print(pd.concat([d.table() for d in done]).to_string(index=False))
    failures = pd.concat([d.failures for d in done], ignore_index=True)
    if len(failures):
        print(f"\n{len(failures)} failed (all in failures.parquet):\n{failures.head(20).to_string(index=False)}")
        if strict:
            raise typer.Exit(3)


@weights_app.command("get")
def weights_get(
    name: Annotated[str, typer.Argument(help="clap, passt or roberta.")],
    offline: Annotated[bool, typer.Option("--offline", help="No network: only check what is here.")] = False,
) -> None:
    """Fetch published weights, verified (HAC_WEIGHTS_URL: a mirror; HAC_CACHE: where to keep them)."""
    from . import weights

    print(f"{name}: {weights.get(name, offline=offline)}")


@weights_app.command("show")
def weights_show() -> None:
    """Where the weights are, their size, checksum and licence."""
    from . import weights

    print(weights.show().to_string(index=False))


@data_app.command("get")
def data_get(
    names: Annotated[list[str], typer.Argument(help="bsd10k, bsd35k, eval.")],
    audio: Annotated[
        bool, typer.Option("--audio", help="The sounds too (11 GB for bsd10k, 35 GB for bsd35k).")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="No network: only unpack and check what is in the cache.")
    ] = False,
) -> None:
    """Fetch metadata and provided embeddings (HAC_DATA_URL: a mirror; HAC_CACHE: where to keep them)."""
    from .fetch import get

    for name, folder in get(names, audio=audio, offline=offline).items():
        print(f"{name}: {folder}")


def _folder_of(name: str) -> Path:
    """A folder, or the name of a fetched data set."""
    from .fetch import get
    from .records import RECORDS

    return get([name], offline=True)[name] if name in RECORDS and not Path(name).is_dir() else Path(name)


@data_app.command("check")
def data_check(
    folder: Annotated[str, typer.Argument(help="Dataset folder, or a fetched data set's name.")],
) -> None:
    """Say what is in a dataset folder and everything that is wrong with it; exit code 1 if there are errors."""
    from .checkup import check, format_report

    report_ = check(_folder_of(folder))
    print(format_report(report_))
    if any(f.level == "error" for f in report_.findings):
        raise typer.Exit(1)


@data_app.command("show")
def data_show(
    folder: Annotated[str, typer.Argument(help="Dataset folder, or a fetched data set's name.")],
    figure: Annotated[Path | None, typer.Option(help="Write the figure here: NAME.png and NAME.svg.")] = None,
) -> None:
    """Class counts, confidence, uploaders, text coverage, durations."""
    from . import checkup
    from .plotting import save, style

    summary = checkup.show(_folder_of(folder))
    print(checkup.format_show(summary))
    if figure is not None:
        with style():
            print(save(checkup.figure(summary), figure.parent, figure.stem))


def main() -> None:
    """Entry point: a HacError is one clear message and exit code 2; anything else is our bug."""
    try:
        app()
    except HacError as e:
        print(e, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
