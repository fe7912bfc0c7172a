"""The metadata table: all problems in one go, both codings of class_idx, and mix-ups caught by name."""

from __future__ import annotations

import pandas as pd
import pytest

from hac_utils.errors import HacError
from hac_utils.metadata import COLUMNS, claims_v12, examine, read_metadata, releases
from hac_utils.taxonomy import CLASS_IDX, CLASSES, INDEX


def rows(n=23, **columns):
    frame = pd.DataFrame({"sound_id": [f"{900 + i}" for i in range(n)], "class": [CLASSES[i % 23] for i in range(n)]})
    frame = frame.assign(confidence="4", uploader="ann", title="t", tags="x,y", description="d")
    return frame.assign(**columns)


def written(folder, frame, name="T_metadata.csv"):
    path = folder / "metadata" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def refused(path) -> HacError:
    with pytest.raises(HacError) as e:
        read_metadata(path)
    return e.value


# all problems in one go --------------------------------------------------------------------------


def test_all_problems_are_listed_with_row_column_value_and_what_is_allowed(tmp_path):
    frame = rows(class_idx=[str(CLASS_IDX[c]) for c in CLASSES])
    frame.loc[0, "confidence"] = "7"
    frame.loc[2, ["class", "class_idx"]] = ["fx-d", ""]
    frame.loc[3, "sound_id"] = "900"
    frame.loc[5, "class_idx"] = "999"
    frame.loc[6, "class_idx"] = "401"
    error = refused(written(tmp_path, frame.drop(columns="tags")))
    assert error.what.splitlines() == [
        "6 problems in the metadata table",
        "  column tags: the column tags is missing; columns found: " + ", ".join(frame.drop(columns="tags").columns),
        "  row 2, column confidence, sound_id 900: '7'; allowed: 1 to 5, or empty",
        "  row 4, column class, sound_id 902: 'fx-d'; allowed: a second-level BST code ("
        + ", ".join(CLASSES)
        + "), or one that is left out (fx-other, fx)",
        "  row 5, column sound_id: duplicate sound_id '900'; allowed: one row per clip",
        "  row 7, column class_idx, sound_id 905: '999'; allowed: 0 to 22 (v1.1) or 101 to 504 (v1.2), or empty beside a class",
        "  row 8, column class_idx, sound_id 906: '401' is fx-o, but the class is 'is-k'; allowed: the class_idx of the class in the same row",
    ]
    assert "column" in error.where and "tags" in error.fix


def test_the_first_ten_are_shown_and_the_rest_is_counted_by_column(tmp_path):
    frame = rows()
    frame.loc[:14, "confidence"] = "9"
    frame.loc[18:20, "class"] = "zz"
    lines = refused(written(tmp_path, frame)).what.splitlines()
    assert lines[0] == "18 problems in the metadata table" and len(lines) == 12
    assert lines[-1] == "  and 8 more: 5 in column confidence, 3 in column class"


def test_rows_are_lines_of_the_file_also_after_line_breaks_in_a_cell(tmp_path):
    frame = rows(4)
    frame.loc[0, "description"] = "one\ntwo\r\nthree"
    frame.loc[2, "confidence"] = "0"
    path = written(tmp_path, frame)
    assert "row 6, column confidence, sound_id 902" in refused(path).what
    assert path.read_bytes().replace(b"\r\n", b"\n").split(b"\n")[5].startswith(b"902,")


def test_an_odd_value_is_shown_in_one_short_line(tmp_path):
    frame = rows(3)
    frame.loc[1, "class"] = "x\n" * 100
    (line,) = refused(written(tmp_path, frame)).what.splitlines()[1:]
    assert "x\\nx" in line and "…" in line


def test_examine_gives_the_usable_rows_beside_the_problems(tmp_path):
    frame = rows()
    frame.loc[1, "confidence"] = "x"
    frame.loc[2, "sound_id"] = "a/b"
    frame.loc[3, "class"] = "is-other"
    found = examine(written(tmp_path, frame))
    assert [(p.column, p.line) for p in found.problems] == [("confidence", 3), ("sound_id", 4)]
    assert len(found.frame) == 20 and len(found.ids) == 22 and {"901", "903"} <= set(found.ids)
    assert found.frame.columns.tolist() == COLUMNS


def test_a_table_of_twelve_thousand_rows_with_a_thousand_problems_is_one_short_error(tmp_path):
    frame = rows(12_000)
    frame.loc[::12, "confidence"] = "no"
    error = refused(written(tmp_path, frame))
    assert error.what.startswith("1000 problems") and len(str(error)) < 3000


# codings of class_idx ----------------------------------------------------------------------------


@pytest.mark.parametrize(("coding", "note"), [(INDEX, "v1.1 coding 0-22"), (CLASS_IDX, None)])
def test_both_codings_are_read_and_come_out_as_v12(coding, note, tmp_path):
    frame, notes = read_metadata(written(tmp_path, rows(class_idx=[str(coding[c]) for c in CLASSES])))
    assert frame["class_idx"].tolist() == list(CLASS_IDX.values())
    assert [n for n in notes if "coding" in n] == ([] if note is None else notes) and (note is None or note in notes[0])


@pytest.mark.parametrize("ending", ["", ".0"])
@pytest.mark.parametrize("coding", [INDEX, CLASS_IDX])
def test_the_class_is_filled_in_from_either_coding(coding, ending, tmp_path):
    frame = rows(class_idx=[f"{coding[c]}{ending}" for c in CLASSES])
    for given in (frame.drop(columns="class"), frame.assign(**{"class": ""})):
        back, notes = read_metadata(written(tmp_path, given))
        assert back["class"].tolist() == list(CLASSES) and any(
            "filled in from class_idx in 23 rows" in n for n in notes
        )


def test_leftovers_are_dropped_with_a_note_by_code_and_by_index(tmp_path):
    frame = rows(6, class_idx=["101", "199", "500", "201", "202", "203"])
    for given in (
        frame.drop(columns="class"),
        frame.assign(**{"class": ["m-sp", "m-other", "ss", "is-p", "is-s", "is-w"]}),
    ):
        back, notes = read_metadata(written(tmp_path, given))
        assert back["class"].tolist() == ["m-sp", "is-p", "is-s", "is-w"]
        assert any(n.startswith("2 clips with -other or family-only") for n in notes)


def test_two_codings_in_one_file_are_named(tmp_path):
    frame = rows(class_idx=[str(INDEX[c] if k > 4 else CLASS_IDX[c]) for k, c in enumerate(CLASSES)])
    error = refused(written(tmp_path, frame))
    assert (
        error.what.startswith("1 problem ")
        and "two codings in one file: 0-22 (v1.1) in 18 rows and 101-504 (v1.2) in 5 rows (first in rows 7 and 2)"
        in error.what
    )
    assert "two releases" in error.fix


def test_alphabetical_class_order_is_named_once_instead_of_row_by_row(tmp_path):
    rank = {c: str(i) for i, c in enumerate(sorted(CLASSES))}
    frame = rows(class_idx=[rank[c] for c in CLASSES])
    error = refused(written(tmp_path, frame))
    assert (
        error.what.startswith("1 problem ")
        and "alphabetical class order" in error.what
        and "taxonomy order" in error.fix
    )
    by_family = frame.drop(columns="class").assign(class_top=[c.split("-")[0] for c in CLASSES])
    assert "alphabetical class order" in refused(written(tmp_path, by_family)).what


def test_a_few_contradictions_are_no_alphabetical_order(tmp_path):
    frame = rows(class_idx=[str(INDEX[c]) for c in CLASSES])
    frame.loc[[3, 4], "class_idx"] = ["0", "1"]
    error = refused(written(tmp_path, frame))
    assert error.what.startswith("2 problems") and "alphabetical" not in error.what


def test_an_evaluation_table_needs_no_class(tmp_path):
    frame = rows(3)[["sound_id", "title", "tags", "description"]].rename(columns={"sound_id": "anonymous_id"})
    back, notes = read_metadata(written(tmp_path, frame))
    assert back["sound_id"].tolist() == ["900", "901", "902"] and set(back["class_idx"]) == {-1} and notes == []


# releases ----------------------------------------------------------------------------------------


def relabelled(version: int) -> pd.DataFrame:
    """The 58 clips with their class in v1.1 (0) or v1.2 (1)."""
    pairs = releases()["relabelled"]
    frame = rows(58)
    return frame.assign(sound_id=list(pairs), **{"class": [p[version] for p in pairs.values()]})


def test_the_fingerprint_holds_58_clips_whose_two_classes_differ():
    pairs = releases()["relabelled"]
    assert len(pairs) == 58 and all(a != b and {a, b} <= set(CLASSES) for a, b in pairs.values())


@pytest.mark.parametrize("name", ["BSD10k-v1.2", "BSD10k_1.2", "bsd10k_v1_2"])
def test_v11_labels_in_a_folder_named_v12_are_refused_by_name_also_as_a_shuffled_subset(name, tmp_path):
    frame = relabelled(0).sample(frac=0.3, random_state=0)
    error = refused(written(tmp_path / name, frame))
    assert (
        "v1.1 labels under the name v1.2" in error.what
        and "17 of the 17" in error.what
        and "hac data get bsd10k" in error.fix
    )


def test_v11_labels_in_the_coding_of_v12_are_refused(tmp_path):
    frame = relabelled(0)
    frame["class_idx"] = [str(CLASS_IDX[c]) for c in frame["class"]]
    assert "class_idx is in the coding of v1.2" in refused(written(tmp_path, frame)).what


def test_a_mixture_of_two_releases_says_how_many_of_each(tmp_path):
    frame = relabelled(1)
    frame.loc[:9, "class"] = relabelled(0).loc[:9, "class"]
    what = refused(written(tmp_path / "v1.2", frame)).what
    assert "10 of the 58 clips" in what and "48 the one of v1.2" in what


def test_v11_labels_without_a_claim_are_a_note_and_v12_labels_are_none(tmp_path):
    _, notes = read_metadata(written(tmp_path / "BSD10k-v1.1", relabelled(0)))
    assert len(notes) == 1 and notes[0].startswith("labels of BSD10k v1.1: 58 of the 58")
    assert read_metadata(written(tmp_path / "BSD10k-v1.2", relabelled(1)))[1] == []


def test_only_the_file_and_its_dataset_folder_claim_a_version(tmp_path):
    assert claims_v12(tmp_path / "BSD10k-v1.2" / "metadata" / "BSD10k_metadata.csv") and claims_v12(
        tmp_path / "x" / "labels_v1.2.csv"
    )
    assert not claims_v12(tmp_path / "v1.2" / "other" / "metadata" / "m.csv") and not claims_v12(
        tmp_path / "v1.20" / "m.csv"
    )


# real data ---------------------------------------------------------------------------------------


def test_the_real_labels_are_recognised_and_v11_under_the_name_v12_is_refused(real, tmp_path):
    labels = pd.read_csv(real / "bsd10k_labels.csv", dtype=str, keep_default_na=False)
    frame = labels[["sound_id", "class"]].assign(title="", tags="", description="")
    found = examine(written(tmp_path / "v1.2", frame.sample(frac=1, random_state=1)))
    assert (found.release, found.problems, found.notes) == ("BSD10k v1.2", [], [])
    old = frame.assign(**{"class": labels["class_v1_1"]})
    found = examine(written(tmp_path / "v1.2", old))
    assert found.release == "BSD10k v1.1" and len(found.problems) == 1
    assert "58 of the 58" in found.problems[0].what
    coded = old.assign(class_idx=old["class"].map(INDEX).astype(str)).drop(columns="class")
    found = examine(written(tmp_path / "v1.1", coded))
    assert found.release == "BSD10k v1.1" and found.problems == [] and len(found.notes) == 3


def test_crowd_labels_of_bsd35k_are_read_without_a_note_on_releases(real, tmp_path):
    crowd = pd.read_csv(real / "extra" / "bsd35k_cs_oof_nyu_both.csv", dtype=str)
    frame = crowd[["sound_id"]].assign(title="", tags="", description="", confidence="", **{"class": crowd["gt"]})
    back, notes = read_metadata(written(tmp_path, frame, "BSD35k-CS_metadata.csv"))
    assert len(back) == 31_464 and notes == [] and back["confidence"].isna().all()
