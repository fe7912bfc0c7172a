"""`make report PROFILE=bsd10k` from an empty cache, with nothing but a test server to fetch from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from record_server import RecordServer, make_record
from test_notebooks import checkout, make

from hac_utils import synth

pytest.importorskip("papermill", reason="the lab extra is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bsd10k")]
HAC = [sys.executable, "-m", "hac_utils.cli"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    corpus = root / "corpus"
    synth.generate(corpus, clips=230, noisy=115, evaluation=23, seed=1, workers=1)
    make_record(root / "served" / "19868804", corpus / "BSD10k", audio=False)
    make_record(root / "served" / "19187100", corpus / "BSD35k-CS", audio=False)
    with RecordServer(root / "served") as running:
        yield running


def test_from_an_empty_cache_to_table_1_with_provided_embeddings(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HAC_DATA_URL", server.url)
    monkeypatch.setenv("HAC_CACHE", str(tmp_path / "cache"))
    root = checkout(tmp_path / "clone")
    profile = root / "configs" / "bsd10k.yaml"  # the real one, with less training
    profile.write_text(
        profile.read_text().replace("epochs: 40", "epochs: 5").replace("[0, 1, 2]", "[0]")
        + "roberta: {epochs: 1}\nhatr: {epochs: 2}\n"
    )
    done = make(root, "report", "NAME=fake", "PROFILE=bsd10k")
    assert done.returncode == 0, done.stdout + done.stderr
    results = {p.stem: json.loads(p.read_text()) for p in (root / "runs/fake/results").glob("*.json")}
    assert results["01_extraction"]["encoders"] == {"audio": "clap-provided", "text": "clap-provided"}
    assert results["01_extraction"]["has_audio"] and not results["01_extraction"]["has_sounds"]
    assert "not the published files" in results["01_extraction"]["corpora"]["dev"]["notes"][-1]
    table1 = {row["system"]: row["hF"] for row in results["02_heads"]["table1"]}
    assert set(table1) == {"audio", "text", "concat", "gated", "hatr audio", "hatr", "logistic", "neighbours"}
    assert min(table1[head] for head in ("audio", "text", "concat", "gated")) > 20
    assert {row["system"] for row in results["02_heads"]["text_systems"]["uploader5"]} >= {
        "text head, minilm",
        "tfidf svm",
    }
    assert results["03_fine_tuning"]["systems"] == ["roberta"]
    assert results["04_pseudo_labels"]["voters"] == ["M", "R"] and results["04_pseudo_labels"]["kept"] > 0
    report = (root / "runs/fake/report.html").read_text(encoding="utf-8")
    assert "78.81 ± 1.08" in report and "quoted from the report" in report  # published beside measured, kept apart
    assert "zero-shot CLAP is left out" in report and "hac weights get clap" in report
    assert "not the published files" in report and "no evaluation corpus" in report
    asked = {seen.name for seen in server.log}
    assert {"metadata.zip", "features.zip"} <= asked and "audio.zip" not in asked


def test_data_commands_as_a_person_types_them(server, tmp_path):
    env = os.environ | {"HAC_DATA_URL": server.url, "HAC_CACHE": str(tmp_path / "cache")}

    def hac(*words):
        return subprocess.run([*HAC, "data", *map(str, words)], env=env, capture_output=True, text=True, check=False)

    done = hac("show", "bsd10k")
    assert done.returncode == 2 and "hac data get bsd10k" in done.stderr
    done = hac("get", "bsd10k", "bsd35k")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[0].split(": ", 1)[1])
    assert folder.name == "BSD10k" and (folder / "metadata").is_dir()
    done = hac("check", "bsd10k")
    assert done.returncode == 0, done.stdout + done.stderr
    done = hac("show", "bsd10k", "--figure", tmp_path / "counts.png")
    assert done.returncode == 0 and "230 clips" in done.stdout and (tmp_path / "counts.png").stat().st_size > 10_000
    done = hac("get", "bsd10")
    assert done.returncode == 2 and "did you mean 'bsd10k'" in done.stderr
