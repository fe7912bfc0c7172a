"""The whole chain through make and papermill: right files, same bytes, survives kill -9, clear errors."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

pytest.importorskip("papermill", reason="the lab extra is not installed")
pytest.importorskip("torch", reason="the train extra is not installed")

from hac_utils import runner
from hac_utils.errors import HacError

REPO = Path(__file__).resolve().parents[1]
HAC = [sys.executable, "-m", "hac_utils.cli"]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("notebooks")]


def checkout(folder: Path) -> Path:
    """A copy of the checkout that shares this environment, so that make finds it installed."""
    folder.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(REPO / name, folder / name)
    for name in ("configs", "notebooks", "hac_utils"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    venv = folder / ".venv"
    venv.mkdir()
    (venv / "bin").mkdir()
    (venv / "bin" / "hac").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hac_utils.cli "$@"\n')
    (venv / "bin" / "hac").chmod(0o755)
    (venv / ".installed").touch()
    return folder


def make(root: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    # `make test` hands its own MAKEFLAGS and MAKELEVEL down, and the inner make would then act as a sub-make
    outer = ("HAC_ROOT", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
    env = {key: value for key, value in os.environ.items() if key not in outer}
    env |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        ["make", *arguments],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        **options,
    )


def products(root: Path, name: str) -> dict[str, str]:
    """Hashes of everything that must be the same bytes in every run."""
    run = root / "runs" / name
    files = [
        p
        for part in ("results", "predictions", "submissions", "splits", "tables")
        for p in (run / part).rglob("*")
        if p.is_file()
    ]
    files += list((root / "figures" / name).glob("*"))
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> Path:
    """An undisturbed `make report PROFILE=smoke`."""
    root = checkout(tmp_path_factory.mktemp("smoke") / "clone")
    done = make(root, "report", "PROFILE=smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("[")] == list(runner.NOTEBOOKS)
    assert "runs/smoke/report.html" in lines[-1]
    return root


def test_make_report_leaves_every_product(smoke):
    names = set(products(smoke, "smoke"))
    for figure in ("fig1_overview", "fig2_accuracy_confidence", "02_confusion_gated", "07_ablations"):
        assert {f"figures/smoke/{figure}.png", f"figures/smoke/{figure}.svg"} <= names
    assert {f"runs/smoke/results/{n}.json" for n in runner.NOTEBOOKS} <= names
    labels = [f"Synthetic_HAC_task1_{i}" for i in (1, 2, 3, 4)]
    assert {
        f"runs/smoke/submissions/task1/{x}/{x}.{end}" for x in labels for end in ("output.csv", "meta.yaml")
    } <= names
    report = (smoke / "runs" / "smoke" / "report.html").read_text(encoding="utf-8")
    assert "Synthetic demo corpus" in report and report.count("<img") >= 13
    meta = (smoke / f"runs/smoke/submissions/task1/{labels[0]}/{labels[0]}.meta.yaml").read_text(encoding="utf-8")
    assert meta.startswith("# SYNTHETIC")


def test_every_manifest_names_what_it_read_and_wrote(smoke):
    for notebook, upstream in runner.NOTEBOOKS.items():
        manifest = json.loads((smoke / "runs/smoke/manifests" / f"{notebook}.json").read_text())
        assert manifest["parameters"]["profile"] == "smoke"
        assert {"numpy", "torch", "papermill"} <= set(manifest["packages"])
        assert manifest["run"]["wall_s"] > 0 and manifest["run"]["peak_memory_mb"] > 50
        assert bool(manifest["inputs"]) == bool(upstream)
        for name, digest in {**manifest["outputs"], **manifest["inputs"]}.items():
            assert hashlib.sha256((smoke / name).read_bytes()).hexdigest() == digest, name


def test_executed_notebooks_hold_no_error_and_no_failure_is_hidden(smoke):
    for notebook in runner.NOTEBOOKS:
        executed = nbformat.read(smoke / "runs/smoke/notebooks" / f"{notebook}.ipynb", 4)
        outputs = [o for c in executed.cells if c.cell_type == "code" for o in c.outputs]
        assert outputs and not [o for o in outputs if o.output_type == "error"]


@pytest.mark.browser
def test_the_report_opens_without_network_with_every_picture_and_the_notice(smoke, visit):
    page, problems = visit(smoke / "runs/smoke/report.html")
    assert problems == [] and "synthetic" in page.title().lower()
    assert page.get_by_text("Synthetic demo corpus: no number on this page").is_visible()
    widths = page.eval_on_selector_all("img", "images => images.map(i => i.naturalWidth)")
    assert len(widths) >= 13 and min(widths) > 300
    for heading in ("Table 1", "Table 2", "Fig. 2", "Submissions"):
        assert page.locator("main h3, main h2").filter(has_text=heading).count() >= 1


def test_nothing_changed_means_nothing_runs_again(smoke):
    before = products(smoke, "smoke")
    done = make(smoke, "report", "PROFILE=smoke")
    assert done.returncode == 0 and "[" not in done.stdout
    assert products(smoke, "smoke") == before


def test_killed_again_and_again_it_ends_with_the_same_bytes(smoke, tmp_path):
    """kill -9 of the whole process group at random moments, then a parallel make: the same bytes."""
    root = checkout(tmp_path / "clone")
    # `make test` hands its own MAKEFLAGS and MAKELEVEL down, and the inner make would then act as a sub-make
    outer = ("HAC_ROOT", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
    env = {key: value for key, value in os.environ.items() if key not in outer}
    env |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "2"}
    rng = random.Random(20261124)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(
            ["make", "report", "PROFILE=smoke"],
            cwd=root,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(3, 16))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        time.sleep(0.5)
    assert kills >= 1
    done = make(root, "-j2", "report", "PROFILE=smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert products(root, "smoke") == products(smoke, "smoke")
    leftovers = [p for p in (root / "runs" / "smoke").rglob("*.running.ipynb")]
    assert not leftovers


def test_a_notebook_runs_alone_with_plain_papermill_and_fetches_what_it_needs(smoke, tmp_path):
    """`papermill notebooks/06….ipynb out.ipynb -p profile smoke`, as a user types it, in a clone that has run."""
    root = smoke
    (root / "runs/smoke/manifests/06_label_ambiguity.json").unlink()
    env = os.environ | {"PYTHONPATH": str(root)}
    env.pop("HAC_ROOT", None)
    command = [
        sys.executable,
        "-m",
        "papermill",
        "notebooks/06_label_ambiguity.ipynb",
        str(tmp_path / "out.ipynb"),
        "-p",
        "profile",
        "smoke",
    ]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (root / "runs/smoke/manifests/06_label_ambiguity.json").exists()
    command[-2:] = ["profil", "smoke"]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0 and "did you mean 'profile'" in done.stdout + done.stderr


def test_the_two_truths_agree_hac_evaluate_and_the_notebooks(smoke):
    """`hac evaluate` on a saved predictions table gives the number that Table 2 averages."""
    table = smoke / "runs/smoke/predictions/05_fixed.parquet"
    dev = pd.read_parquet(smoke / "runs/smoke/tables/dev.parquet")
    truth = smoke / "truth.csv"
    dev[["sound_id", "class"]].to_csv(truth, index=False)
    scores = []
    for seed in (0, 1):
        done = subprocess.run(
            [
                *HAC,
                "evaluate",
                str(table),
                "--truth",
                str(truth),
                "--system",
                "S1",
                "--seed",
                str(seed),
                "--subset",
                "--json",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        scores.append(json.loads(done.stdout)["official"]["hF"])
    results = json.loads((smoke / "runs/smoke/results/05_ensemble.json").read_text())
    s1 = next(r for r in results["table2"] if r["system"] == "S1")
    assert sum(scores) / 2 == pytest.approx(s1["hF"], abs=1e-9)


def test_heads_trained_and_compared_as_typed(smoke):
    def hac(*words):
        env = os.environ | {"PYTHONPATH": str(smoke), "HAC_ROOT": str(smoke)}
        return subprocess.run([*HAC, *words], env=env, capture_output=True, text=True, check=False)

    run = ("--seeds", "0", "--profile", "smoke")
    done = hac("train", "--heads", "gated,zero-shot-clap", *run)
    assert done.returncode == 2 and "no system 'zero shot clap'" in done.stderr
    done = hac("train", "--heads", "text,concat", "--protocol", "report5", *run)
    assert done.returncode == 0, done.stderr
    files = [smoke / "runs/smoke/predictions" / f"{h}.parquet" for h in ("text", "concat")]
    assert all(str(f) in done.stdout and f.is_file() for f in files) and "seed noise" not in done.stdout
    labels = smoke / "labels.csv"
    pd.read_parquet(smoke / "runs/smoke/tables/dev.parquet")[["sound_id", "class", "uploader"]].to_csv(
        labels, index=False
    )
    done = hac("compare", *map(str, files), "--truth", str(labels), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["n"] == 230 and result["low"] <= result["diff"] <= result["high"] and len(result["per_class"]) == 23
    for file in files:  # the run is left as it was
        file.unlink()


def test_the_submissions_hold_every_evaluation_id_and_score_above_chance(smoke):
    truth = pd.read_csv(smoke / "runs/smoke/data/hidden/eval_truth.csv", dtype=str).set_index("anonymous_id")["class"]
    for i in (1, 2, 3, 4):
        label = f"Synthetic_HAC_task1_{i}"
        output = pd.read_csv(smoke / f"runs/smoke/submissions/task1/{label}/{label}.output.csv", dtype=str)
        assert sorted(output["id"]) == sorted(truth.index)
        assert (output["predicted_bst_second_level_class"].to_numpy() == truth[output["id"]].to_numpy()).mean() > 3 / 23


@pytest.fixture
def folder_checkout(tmp_path):
    return checkout(tmp_path / "clone")


def small_folder(folder: Path, n_classes: int = 4, each: int = 6) -> pd.DataFrame:
    """A dataset folder of tones and noises; the table is returned for spoiling."""
    import numpy as np
    import soundfile as sf

    (folder / "audio").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for c in range(n_classes):
        code = ["m-sp", "m-si", "fx-o", "ss-u"][c]
        for k in range(each):
            wave = 0.3 * np.sin(2 * np.pi * 300 * (c + 1) * np.arange(8000) / 16000) + 0.01 * rng.normal(size=8000)
            sf.write(folder / "audio" / f"{code}{k}.wav", wave, 16000)
            rows.append(
                {
                    "sound_id": f"{code}{k}",
                    "class": code,
                    "class_idx": "",
                    "class_top": "",
                    "confidence": "",
                    "uploader": f"u{k}",
                    "license": "",
                    "title": f"{code} take {k}",
                    "tags": code,
                    "description": "",
                }
            )
    table = pd.DataFrame(rows)
    table.to_csv(folder / "metadata.csv", index=False)
    return table


def test_bad_files_are_named_and_stop_nothing(folder_checkout, tmp_path):
    data = tmp_path / "data with space"
    table = small_folder(data)
    (data / "audio" / "m-sp0.wav").write_bytes(b"")
    (data / "audio" / "m-si0.wav").write_bytes((data / "audio" / "m-si1.wav").read_bytes()[:30])
    (data / "audio" / "fx-o0.wav").write_text("this is not sound")
    (data / "audio" / "ss-u0.wav").unlink()
    done = make(
        folder_checkout,
        "runs/mine/manifests/01_extraction.json",
        "NAME=mine",
        "PROFILE=folder",
        f"DATA={data}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder_checkout / "runs/mine/results/01_extraction.json").read_text())
    failures = {f["sound_id"]: f["reason"] for f in results["failures"]}
    assert set(failures) == {"m-sp0", "m-si0", "fx-o0", "ss-u0"}
    assert failures["m-sp0"] == "the file is empty" and failures["ss-u0"] == "no file for this sound_id"
    assert results["roles"] == {"dev": len(table) - 4}
    assert "4 left out" in done.stdout


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.drop(columns="tags"), "column tags: the column tags is missing"),
        (
            lambda t: t.assign(**{"class": ["zz", *t["class"][1:]]}),
            "row 2, column class, sound_id m-sp0: 'zz'",
        ),
        (lambda t: pd.concat([t, t.head(1)]), "duplicate sound_id 'm-sp0'"),
        (
            lambda t: t.assign(sound_id=[f"x{i}" for i in range(len(t))]),
            "none of the 24 sound_ids has a file",
        ),
    ],
)
def test_bad_metadata_is_one_clear_error_and_exit_code_2(folder_checkout, tmp_path, spoil, message):
    data = tmp_path / "data"
    spoil(small_folder(data)).to_csv(data / "metadata.csv", index=False)
    env = os.environ | {"PYTHONPATH": str(folder_checkout), "HAC_ROOT": str(folder_checkout)}
    done = subprocess.run(
        [*HAC, "run", "01_extraction", "--profile", "folder", "--name", "mine", "--data", str(data)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1 and "where:" in done.stderr and "fix:" in done.stderr
    assert not (folder_checkout / "runs/mine/manifests/01_extraction.json").exists()


def test_make_stops_with_the_message_of_a_missing_folder(folder_checkout):
    done = make(folder_checkout, "report", "NAME=mine", "PROFILE=folder", "DATA=/no/such/folder")
    assert done.returncode == 2 and "error: no such folder" in done.stderr and "Traceback" not in done.stderr
    done = make(folder_checkout, "report", "NAME=mine", "PROFILE=folder")
    assert "needs a dataset folder" in done.stderr
    done = make(folder_checkout, "report", "PROFILE=demoo")
    assert "demoo" in done.stderr and "Traceback" not in done.stderr


def test_other_data_under_the_same_name_makes_everything_stale(folder_checkout, tmp_path):
    target = "runs/mine/manifests/01_extraction.json"
    for which in ("one", "two"):
        small_folder(tmp_path / which, n_classes=3 if which == "one" else 4)
        done = make(folder_checkout, target, "NAME=mine", "PROFILE=folder", f"DATA={tmp_path / which}")
        assert done.returncode == 0, done.stderr
        results = json.loads((folder_checkout / "runs/mine/results/01_extraction.json").read_text())
        assert results["roles"]["dev"] == (18 if which == "one" else 24)


def test_unknown_parameters_are_refused_before_a_kernel_starts():
    with pytest.raises(HacError, match="no parameter 'seedz'"):
        runner.execute("02_heads", profile="smoke", parameters={"seedz": 3})
    with pytest.raises(HacError, match="did you mean '02_heads'"):
        runner.execute("02_head", profile="smoke")


def test_real_recordings_run_through_every_notebook(real, tmp_path):
    """`make report` on 99 real sounds in wav, flac, ogg and mp3 (mini_bst)."""
    root = checkout(tmp_path / "clone")
    (root / "configs/quick.yaml").write_text(
        "kind: folder\ntitle: Real recordings\nseeds: [0]\ntuning_seeds: [0]\nhead: {epochs: 6}\nroberta: {epochs: 1}\npasst: {epochs: 1}\nhatr: {epochs: 2}\n"
    )
    done = make(root, "report", "NAME=mini", "PROFILE=quick", f"DATA={real / 'mini_bst'}")
    assert done.returncode == 0, done.stdout + done.stderr
    results = {n: json.loads((root / f"runs/mini/results/{n}.json").read_text()) for n in runner.NOTEBOOKS}
    assert results["01_extraction"]["roles"] == {"dev": 99} and not results["01_extraction"]["failures"]
    assert "folds lowered from 5 to 4" in results["01_extraction"]["splits"]["official5"]["notes"][0]
    assert results["04_pseudo_labels"]["possible"] is False and results["05_ensemble"]["submissions"] == []
    report = (root / "runs/mini/report.html").read_text(encoding="utf-8")
    assert "folds lowered from 5 to 4" in report and "no noisy corpus" in report and "no evaluation corpus" in report
    assert "Synthetic demo corpus" not in report
