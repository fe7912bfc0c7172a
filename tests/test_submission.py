"""Writing systems, and naming every planted fault."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import yaml

from hac_utils.errors import HacError
from hac_utils.metrics import confusion_matrix, per_class, scores
from hac_utils.submission import HEADER, Problem, check, meta_document, write_system
from hac_utils.taxonomy import CLASSES

LABEL = "Muster_Inst_task1_1"
AUTHORS = [
    {
        "lastname": "Muster",
        "firstname": "Ärin",
        "email": "aerin@inst.edu",
        "corresponding": True,
        "affiliation": {"abbreviation": "Inst", "institute": "The Institute", "location": "City, Country"},
    },
    {
        "lastname": "Second",
        "firstname": "Sam",
        "email": "sam@inst.edu",
        "affiliation": {
            "abbreviation": "Inst",
            "institute": "The Institute",
            "department": "Audio",
            "location": "City",
        },
    },
]
IDS = [f"clip-{i:02d}" for i in range(46)]
TRUE = np.repeat(CLASSES, 2)


def proba(seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(23, 0.2), 46)
    p[np.arange(46), np.arange(46) // 2] += 1
    return p / p.sum(1, keepdims=True)


def meta(label=LABEL, **changes):
    pred = np.array(CLASSES)[proba().argmax(1)]
    options = {
        "label": label,
        "name": "Gated fusion: yes, of frozen embeddings",
        "abbreviation": "Gated",
        "authors": AUTHORS,
        "input_sampling_rate": "48kHz",
        "audio_representation": "LAION-CLAP",
        "text_representation": "LAION-CLAP of title, tags, description",
        "machine_learning_method": "MLP",
        "total_parameters": np.int64(544_279),
        "confusions": {"bsd10k-v1.2": confusion_matrix(TRUE, pred)},
    }
    return meta_document(**(options | changes))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_system(folder, LABEL, IDS, proba(), meta())
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "submissions")


def system(folder):
    return folder / "task1" / LABEL


def output(folder):
    return system(folder) / f"{LABEL}.output.csv"


def test_what_is_written_passes_the_check_at_every_level_of_the_folder(folder):
    for place in (folder, folder / "task1", system(folder)):
        assert check(place) == [] and check(place, IDS) == []


def test_a_system_is_written_as_the_challenge_wants_it(folder):
    lines = output(folder).read_bytes().decode().split("\n")
    assert lines[0] == "id,predicted_bst_second_level_class,prediction_score" and lines[-1] == ""
    p = proba()
    assert lines[1:-1] == [f"{i},{CLASSES[r.argmax()]},{r.max():.6f}" for i, r in zip(IDS, p, strict=True)]
    assert sorted(f.name for f in system(folder).iterdir()) == [f"{LABEL}.meta.yaml", f"{LABEL}.output.csv"]


def test_writing_twice_gives_the_same_bytes(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    write_system(other, LABEL, IDS, proba(), meta())
    for file in system(folder).iterdir():
        assert file.read_bytes() == (system(other) / file.name).read_bytes()


def test_the_meta_file_round_trips_with_the_challenges_keys_in_order(folder):
    text = (system(folder) / f"{LABEL}.meta.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    assert document == meta() and "&" not in text and "Ärin" in text
    assert list(document) == ["submission", "system", "results"]
    assert list(document["submission"]) == ["label", "name", "abbreviation", "authors"]
    assert list(document["system"]) == ["source_code", "description", "complexity", "external_datasets"]
    described = "input_sampling_rate audio_representation text_representation data_augmentation "
    described += "machine_learning_method external_data_usage hierarchical_setting summary"
    assert list(document["system"]["description"]) == described.split()
    assert document["system"]["complexity"] == {"total_parameters": 544_279, "MACS": None}
    sets = document["results"]["development_datasets"]
    assert list(sets) == ["bsd10k-v1.2", "bsd35k-cs"] and list(sets["bsd35k-cs"]["class_wise"]) == list(CLASSES)
    assert sets["bsd35k-cs"]["overall"] == {"hP": None, "hR": None, "hF": None}


def test_the_results_in_the_meta_file_are_the_metrics_rounded_to_four_decimals():
    pred = np.where(TRUE == "m-sp", "m-si", TRUE)  # m-sp is never predicted: null
    confusion = confusion_matrix(TRUE, pred)
    results = meta(confusions={"bsd35k-cs": confusion})["results"]["development_datasets"]["bsd35k-cs"]
    assert results["overall"] == {k: round(scores(confusion)[k], 4) for k in ("hP", "hR", "hF")}
    assert results["class_wise"]["m-sp"] == {"hP": None, "hR": None, "hF": None}
    row = per_class(confusion).set_index("class").loc["m-si"]
    assert results["class_wise"]["m-si"] == {k: round(float(row[k]), 4) for k in ("hP", "hR", "hF")}
    with pytest.raises(HacError, match="did you mean 'bsd10k-v1.2'"):
        meta(confusions={"bsd10k-v1.1": confusion})


def test_a_system_of_the_synthetic_corpus_says_so_in_the_file_and_the_check_warns(tmp_path):
    write_system(tmp_path, LABEL, IDS, proba(), meta(synthetic=True))
    text = (system(tmp_path) / f"{LABEL}.meta.yaml").read_text(encoding="utf-8")
    assert text.startswith("# SYNTHETIC demo corpus") and yaml.safe_load(text) == meta()
    (problem,) = check(tmp_path)
    assert problem.level == "warning" and "synthetic demo corpus" in problem.message


@pytest.mark.parametrize(
    "label, ids, p, document, message",
    [
        ("Muster_Inst_task1_5", IDS, proba(), meta("Muster_Inst_task1_5"), "not of the form"),
        ("Muster_task1_1", IDS, proba(), meta("Muster_task1_1"), "not of the form"),
        ("../Muster_Inst_task1_1", IDS, proba(), meta("../Muster_Inst_task1_1"), "not of the form"),
        (LABEL, IDS[:-1] + IDS[:1], proba(), meta(), "duplicate ids: 1 .clip-00."),
        (LABEL, IDS[:-1] + [""], proba(), meta(), "empty id"),
        (LABEL, IDS[:-1], proba(), meta(), "45 ids but probabilities of shape"),
        (LABEL, IDS, proba()[:, :22], meta(), "shape .46, 22."),
        (LABEL, IDS, proba() * np.nan, meta(), "NaN"),
        (LABEL, IDS, proba() * 3, meta(), "outside"),
        (LABEL, IDS, proba(), meta("Muster_Inst_task1_2"), "submission.label is 'Muster_Inst_task1_2'"),
        (LABEL, IDS, proba(), meta(authors=[]), "at least one author"),
        (LABEL, [], proba()[:0], meta(), "no predictions"),
    ],
)
def test_nothing_is_written_when_the_check_would_call_it_an_error(tmp_path, label, ids, p, document, message):
    with pytest.raises(HacError, match=message):
        write_system(tmp_path / "s", label, ids, p, document)
    assert not (tmp_path / "s").exists()


def edit(old: str, new: str):
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


def line(i: int, new: str):
    def change(text: str) -> str:
        lines = text.split("\n")
        lines[i] = new
        return "\n".join(lines)

    return change


def column(k: int, value: str):
    def change(text: str) -> str:
        rows = [r.split(",") for r in text.rstrip("\n").split("\n")]
        return "\n".join(",".join(r if i == 0 else r[:k] + [value] + r[k + 1 :]) for i, r in enumerate(rows)) + "\n"

    return change


OUTPUT_FAULTS = [
    (edit(HEADER[1], "class"), "error", "missing column predicted_bst_second_level_class"),
    (edit(",prediction_score", ",score"), "error", "missing column prediction_score"),
    (edit(",".join(HEADER), ",".join([HEADER[1], HEADER[0], HEADER[2]])), "error", "the header is predicted"),
    (
        lambda t: "\n".join(r + (",x" if i else ",extra") for i, r in enumerate(t[:-1].split("\n"))) + "\n",
        "error",
        "the header is id,",
    ),
    (lambda t: "\ufeff" + t, "error", "byte-order mark"),
    (lambda t: t.replace("\n", "\r\n"), "warning", "CRLF"),
    (lambda t: t.encode("utf-8") + b"\xff\xfe,m-sp,0.5\n", "error", "not readable as UTF-8"),
    (lambda t: "", "error", "missing column id, predicted"),
    (lambda t: t.split("\n")[0] + "\n", "error", "no predictions"),
    (line(1, "clip-00,m-sp"), "error", "rows without exactly 3 cells: lines 1 (2)"),
    (line(1, ",m-sp,0.5"), "error", "empty id: 1"),
    (line(1, "clip-00,,0.5"), "error", "empty class: 1 (clip-00)"),
    (line(1, "clip-00,m-xy,0.5"), "error", "unknown classes: 1 (m-xy)"),
    (line(1, "clip-00, m-sp,0.5"), "error", "did you mean 'm-sp'"),
    (line(1, "clip-00,fx-other,0.5"), "error", "the task does not have: 1 (fx-other)"),
    (line(1, "clip-00,fx,0.5"), "error", "the task does not have: 1 (fx)"),
    (line(1, "clip-01,m-sp,0.5"), "error", "duplicate ids: 1 (clip-01)"),
    (line(1, "clip-00.wav,m-sp,0.5"), "error", "end in .wav: 1 (clip-00.wav)"),
    (line(1, "clip-01,m-sp,0.5"), "error", "missing ids: 1 (clip-00) of 46"),
    (line(1, "clip-77,m-sp,0.5"), "error", "not in the evaluation set: 1 (clip-77)"),
    (line(1, "clip-00,m-sp,high"), "error", "not numbers: 1 (clip-00)"),
    (line(1, "clip-00,m-sp,"), "error", "not numbers: 1 (clip-00)"),
    (line(1, "clip-00,m-sp,nan"), "error", "NaN or infinite: 1 (clip-00)"),
    (line(1, "clip-00,m-sp,inf"), "error", "NaN or infinite: 1 (clip-00)"),
    (line(1, "clip-00,m-sp,1.2"), "error", "outside [0, 1]: 1 (clip-00)"),
    (line(1, "clip-00,m-sp,-0.1"), "error", "outside [0, 1]: 1 (clip-00)"),
    (column(2, "0.5"), "warning", "all scores are 0.5"),
    (column(1, "fx-o"), "warning", "every clip is 'fx-o'"),
    (
        lambda t: column(1, "fx-o")(t).replace("clip-00,fx-o", "clip-00,m-sp"),
        "warning",
        "45 of 46 clips are 'fx-o'",
    ),
    (line(1, "clip-00,m-sp,0.043478"), "warning", "1 scores are 1/23"),
]


@pytest.mark.parametrize("change, level, message", OUTPUT_FAULTS)
def test_each_fault_planted_in_the_output_file_is_named(folder, change, level, message):
    new = change(output(folder).read_text(encoding="utf-8"))
    output(folder).write_bytes(new if isinstance(new, bytes) else new.encode("utf-8"))
    found = check(folder, IDS)
    assert any(p.level == level and message in p.message and p.file == output(folder).name for p in found), found
    if level == "warning":
        assert not any(p.level == "error" for p in found), found


def put(path: str, value):
    def change(document):
        *above, last = path.split("/")
        for key in above:
            document = document[int(key) if key.isdigit() else key]
        if value is KeyError:
            del document[last]
        else:
            document[last] = value

    return change


BSD10K = "results/development_datasets/bsd10k-v1.2"
META_FAULTS = [
    (put("system/description/summry", "x"), "error", "did you mean 'summary'"),
    (put("notes", "x"), "error", "unknown key notes"),
    (put("submission/label", KeyError), "error", "missing key submission.label"),
    (put("submission/label", "Other_Inst_task1_1"), "error", "the file's label is 'Muster_Inst_task1_1'"),
    (put("submission/name", ""), "error", "submission.name is '', not text"),
    (put("submission/abbreviation", 7), "error", "submission.abbreviation is 7, not text"),
    (put("submission/authors", "me"), "error", "must be a list with at least one author"),
    (put("submission/authors/0/email", "nobody"), "error", "authors[1].email is 'nobody'"),
    (put("submission/authors/0/email", "a.b@example.org"), "warning", "still the placeholder"),
    (put("submission/authors/0/corresponding", False), "error", "0 corresponding authors"),
    (put("submission/authors/1/corresponding", True), "error", "2 corresponding authors"),
    (put("submission/authors/1/affiliation", "Inst"), "error", "authors[2].affiliation must be a mapping"),
    (
        put("submission/authors/1/affiliation/institute", KeyError),
        "error",
        "missing key submission.authors[2].affiliation.institute",
    ),
    (put("system/description", None), "error", "system.description must be a mapping"),
    (put("system/description/machine_learning_method", KeyError), "error", "machine_learning_method"),
    (put("system/complexity/total_parameters", None), "error", "total_parameters is None"),
    (put("system/complexity/total_parameters", 0.5), "error", "total_parameters is 0.5"),
    (put("system/complexity/total_parameters", float("nan")), "error", "total_parameters is nan"),
    (put("system/complexity/total_parameters", {}), "error", "total_parameters is {}"),
    (put("system/complexity/total_parameters", "543 M"), "warning", "give the number"),
    (put("system/complexity/MACS", KeyError), "warning", "missing key system.complexity.MACS"),
    (
        put("system/external_datasets", "BSD35k"),
        "error",
        "system.external_datasets is 'BSD35k', not a list or null",
    ),
    (put("system/source_code", ["x"]), "error", "system.source_code is ['x']"),
    (put("results", KeyError), "error", "missing key results"),
    (put(f"{BSD10K}/overall/hF", 81.13), "error", "is it a percentage? Write 0.8113"),
    (put(f"{BSD10K}/overall/hP", -0.1), "error", "overall.hP is -0.1"),
    (put(f"{BSD10K}/overall/hP", "0.8"), "error", "overall.hP is '0.8'"),
    (put(f"{BSD10K}/class_wise/fx-other", {}), "error", "class_wise.fx-other: did you mean"),
    (
        put(f"{BSD10K}/class_wise/ss-s", KeyError),
        "error",
        "missing key results.development_datasets.bsd10k-v1.2.class_wise.ss-s",
    ),
    (put("results/development_datasets/bsd35k-cs/class_wise", KeyError), "warning", "bsd35k-cs.class_wise"),
]


@pytest.mark.parametrize("change, level, message", META_FAULTS)
def test_each_fault_planted_in_the_meta_file_is_named(folder, change, level, message):
    document = copy.deepcopy(meta())
    change(document)
    file = system(folder) / f"{LABEL}.meta.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    found = check(folder)
    assert any(p.level == level and message in p.message and p.file == file.name for p in found), found
    if level == "warning":
        assert len(found) == 1, found


@pytest.mark.parametrize(
    "data, message",
    [
        (b"submission: [", "not readable as plain YAML"),
        (b"\xff\xfe", "not readable as plain YAML"),
        (b"x: !!python/object/apply:os.system [ls]\n", "not readable as plain YAML"),
        (b"[" * 5000, "not readable as plain YAML"),
        (b"", "the file must be a mapping"),
        (b"- a\n", "the file must be a mapping"),
        (b"\xef\xbb\xbfsubmission: {}\n", "byte-order mark"),
        (
            b"a: &a [x, x]\n"
            + b"".join(b"%c: &%c [*%c, *%c, *%c]\n" % (98 + i, 98 + i, 97 + i, 97 + i, 97 + i) for i in range(24)),
            "unknown key",
        ),
    ],
)
def test_a_broken_or_hostile_meta_file_is_an_error_and_never_run(folder, data, message):
    (system(folder) / f"{LABEL}.meta.yaml").write_bytes(data)
    found = check(folder)
    assert any(p.level == "error" and message in p.message for p in found), found


def test_nulls_may_be_written_with_a_tag_and_a_list_of_texts_is_a_text(folder):
    file = system(folder) / f"{LABEL}.meta.yaml"
    text = file.read_text(encoding="utf-8").replace("null", "!!null")
    file.write_text(
        text.replace("audio_representation: LAION-CLAP", "audio_representation: [CLAP, PaSST]"),
        encoding="utf-8",
    )
    assert "!!null" in file.read_text(encoding="utf-8") and check(folder) == []


def test_the_summary_which_only_some_teams_write_may_be_left_out(folder):
    file = system(folder) / f"{LABEL}.meta.yaml"
    text = file.read_text(encoding="utf-8")
    assert "    summary: null\n" in text
    file.write_text(text.replace("    summary: null\n", ""), encoding="utf-8")
    assert check(folder) == []


def test_missing_files_and_other_names_are_found(folder):
    meta_file = system(folder) / f"{LABEL}.meta.yaml"
    meta_file.rename(system(folder) / "Muster_Inst_task1_2.meta.yaml")
    (problem,) = check(folder)
    assert problem == Problem(
        "error", f"{LABEL}.meta.yaml", "the meta file is missing; there is Muster_Inst_task1_2.meta.yaml"
    )
    output(folder).rename(system(folder) / "Wrong.output.csv")
    messages = [(p.level, p.message) for p in check(folder)]
    assert ("error", "'Wrong' is not of the form Lastname_Inst_task1_N with N from 1 to 4") in messages
    assert ("warning", f"the folder is called {LABEL!r}, the file's label is 'Wrong'") in messages
    (system(folder) / "Other.output.csv").write_text("x")
    assert any("several output files" in p.message for p in check(folder))
    for file in system(folder).glob("*.output.csv"):
        file.unlink()
    assert Problem("error", LABEL, f"no {LABEL}.output.csv") in check(folder)


def test_copies_and_a_fifth_system_are_found(tmp_path):
    labels = [f"Muster_Inst_task1_{n}" for n in (1, 2, 3, 4)]
    for n, label in enumerate(labels):
        p = proba()
        p[n, :] = np.roll(p[n], 1)  # one clip differs: 45 of 46 agree, below 99.9 %
        write_system(tmp_path, label, IDS, p, meta(label))
    assert check(tmp_path) == []
    write_system(tmp_path, labels[1], IDS, proba(), meta(labels[1]))
    write_system(tmp_path, labels[2], IDS, proba() ** 1.1 / (proba() ** 1.1).sum(1, keepdims=True), meta(labels[2]))
    (problem,) = check(tmp_path)
    assert problem.level == "warning" and f"{labels[1]} and {labels[2]} agree on 46 of 46" in problem.message
    (tmp_path / "task1" / "Muster_Inst_task1_5").mkdir()
    assert any(p.level == "error" and "5 systems" in p.message for p in check(tmp_path))


def test_a_wrong_number_of_evaluation_ids_is_noticed_without_the_list(tmp_path):
    ids = [f"{i:08x}-0000-4000-8000-000000000000" for i in range(46)]
    write_system(tmp_path, LABEL, ids, proba(), meta())
    (problem,) = check(tmp_path)
    assert problem.level == "warning" and "46 rows; the evaluation set has 3246" in problem.message
    assert check(tmp_path, ids) == []


def test_a_folder_without_systems_or_no_folder_is_an_error(tmp_path):
    (problem,) = check(tmp_path)
    assert problem.level == "error" and "no systems here" in problem.message
    assert str(problem).startswith("error: ")
    with pytest.raises(HacError, match="no such folder"):
        check(tmp_path / "nowhere")
