"""Dataset folders: what is read, what is refused, what is listed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from hac_utils.config import Profile
from hac_utils.datasets import (
    COLUMNS,
    describe,
    find_metadata,
    join_text,
    open_corpora,
    read_dataset,
    read_metadata,
)
from hac_utils.errors import HacError
from hac_utils.taxonomy import CLASS_IDX, CLASSES


def rows(n=4):
    return pd.DataFrame(
        {
            "sound_id": [f"{100 + i}" for i in range(n)],
            "class": [CLASSES[i % 23] for i in range(n)],
            "confidence": [["5", "4", "", "1"][i % 4] for i in range(n)],
            "uploader": ["ann", "bob", "", "ann"][:n] if n <= 4 else "ann",
            "title": "a title",
            "tags": "x,y",
            "description": "words",
        }
    )


def folder_of(tmp_path, frame, audio=None, place="metadata/T_metadata.csv"):
    target = tmp_path / place
    target.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(target, index=False)
    if audio is not None:
        (tmp_path / "audio").mkdir()
        for name in audio:
            sf.write(tmp_path / "audio" / name, np.zeros(800, np.float32), 8000)
    return tmp_path


def refused(frame, tmp_path) -> HacError:
    frame.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(HacError) as e:
        read_metadata(tmp_path / "m.csv")
    assert "m.csv" in e.value.where and e.value.fix
    return e.value


# bad metadata ------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["sound_id", "class", "title", "tags", "description"])
def test_a_missing_column_is_named(column, tmp_path):
    assert column in refused(rows().drop(columns=column), tmp_path).what


def test_an_unknown_class_is_named_with_its_row_and_id(tmp_path):
    error = refused(rows().replace({"class": {"m-si": "fx-d"}}), tmp_path)
    assert "row 3" in error.what and "101" in error.what and "'fx-d'" in error.what and "fx-o" in error.fix


@pytest.mark.parametrize("code", ["", "M-SP", "101", "xx-other"])
def test_a_class_that_is_no_code_is_refused(code, tmp_path):
    assert f"{code!r}" in refused(rows().replace({"class": {"m-sp": code}}), tmp_path).what


def test_a_duplicate_id_is_named(tmp_path):
    frame = rows()
    frame.loc[2, "sound_id"] = " 100 "
    what = refused(frame, tmp_path).what
    assert "row 4" in what and "duplicate sound_id '100'" in what


def test_an_empty_id_is_refused_with_its_row(tmp_path):
    frame = rows()
    frame.loc[1, "sound_id"] = "  "
    assert "row 3, column sound_id" in refused(frame, tmp_path).what


@pytest.mark.parametrize("odd", ["../100", "a/b", "a\\b", "..", ".", "a\nb"])
def test_an_id_that_leads_out_of_the_folder_is_refused(odd, tmp_path):
    frame = rows()
    frame.loc[1, "sound_id"] = odd
    assert "cannot be a file name" in refused(frame, tmp_path).what


@pytest.mark.parametrize("value", ["0", "6", "high", "inf", "-1", "4,5"])
def test_a_confidence_that_is_not_1_to_5_is_refused_with_its_clip(value, tmp_path):
    frame = rows()
    frame.loc[1, "confidence"] = value
    error = refused(frame, tmp_path)
    assert "101" in error.what and repr(value) in error.what


def test_a_table_without_rows_or_with_leftovers_only_is_refused(tmp_path):
    assert "no rows" in refused(rows().head(0), tmp_path).what
    assert "only -other" in refused(rows().assign(**{"class": "fx-other"}), tmp_path).what


def test_a_column_that_appears_twice_is_refused(tmp_path):
    frame = rows()
    frame["title "] = "again"
    assert "title" in refused(frame, tmp_path).what


# good metadata -----------------------------------------------------------------------------------


def test_the_frame_is_canonical_and_derived_columns_come_from_the_class(tmp_path):
    frame, notes = read_metadata(folder_of(tmp_path, rows().assign(class_top="zz")) / "metadata/T_metadata.csv")
    assert frame.columns.tolist() == COLUMNS and len(notes) == 1 and "class_top" in notes[0]
    assert frame["class_idx"].tolist() == [CLASS_IDX[c] for c in frame["class"]] and frame["class_idx"].dtype == "int64"
    assert frame["class_top"].tolist() == ["m", "m", "m", "is"]
    np.testing.assert_array_equal(frame["confidence"], [5, 4, np.nan, 1])
    assert frame["license"].tolist() == [""] * 4 and frame["uploader"].tolist() == ["ann", "bob", "", "ann"]


def test_words_that_look_like_missing_values_stay_words(tmp_path):
    frame = rows().assign(title="nan", tags="NA,<NA>", uploader="None")
    back, _ = read_metadata(folder_of(tmp_path, frame) / "metadata/T_metadata.csv")
    assert back["title"][0] == "nan" and back["tags"][0] == "NA,<NA>" and back["uploader"][0] == "None"


def test_a_parquet_table_and_a_row_that_ends_early_have_empty_cells_too(tmp_path):
    frame = rows().astype(object)
    frame.loc[1, ["title", "uploader"]] = None
    frame.to_parquet(tmp_path / "m.parquet")
    back, _ = read_metadata(tmp_path / "m.parquet")
    assert back.loc[1, ["title", "uploader"]].tolist() == ["", ""]
    (tmp_path / "m.csv").write_text("sound_id,class,title,tags,description\n1,m-sp,t\n2,m-si,t,u,v\n")
    back, _ = read_metadata(tmp_path / "m.csv")
    assert back["tags"].tolist() == ["", "u"] and back["uploader"].tolist() == ["", ""]


def test_leftover_classes_are_dropped_with_a_note(tmp_path):
    frame = rows(8)
    frame.loc[[1, 5], "class"] = ["fx-other", "ss"]
    back, notes = read_metadata(folder_of(tmp_path, frame) / "metadata/T_metadata.csv")
    assert back["sound_id"].tolist() == [
        "100",
        "102",
        "103",
        "104",
        "106",
        "107",
    ] and back.index.tolist() == list(range(6))
    assert len(notes) == 1 and notes[0].startswith("2 clips")


def test_an_unlabelled_table_has_anonymous_ids_and_empty_classes(tmp_path):
    frame = rows()[["sound_id", "title", "tags", "description"]].rename(columns={"sound_id": "anonymous_id"})
    back, _ = read_metadata(folder_of(tmp_path, frame) / "metadata/T_metadata.csv")
    assert back["sound_id"].tolist() == ["100", "101", "102", "103"]
    assert set(back["class"]) == {""} and set(back["class_idx"]) == {-1}


# folders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["metadata/BSD10k_metadata.csv", "metadata.csv", "metadata/metadata.csv"])
def test_the_table_is_found_in_three_places(place, tmp_path):
    assert find_metadata(folder_of(tmp_path, rows(), place=place)) == tmp_path / place


def test_no_folder_no_table_or_two_tables_are_errors(tmp_path):
    with pytest.raises(HacError, match="no such folder"):
        read_dataset(tmp_path / "absent")
    with pytest.raises(HacError, match="no metadata table"):
        read_dataset(tmp_path)
    folder_of(tmp_path, rows())
    folder_of(tmp_path, rows(), place="metadata/U_metadata.csv")
    with pytest.raises(HacError, match="more than one"):
        read_dataset(tmp_path)


def test_an_id_without_a_sound_file_is_listed_and_noted(tmp_path):
    data = read_dataset(folder_of(tmp_path, rows(), ["100.wav", "103.flac", "999.wav"]), "mine")
    assert data.name == "mine" and data.has_audio and len(data.frame) == 4
    assert {i: p.name for i, p in data.audio.items()} == {"100": "100.wav", "103": "103.flac"}
    assert data.missing_audio == ["101", "102"] and any(n.startswith("2 clips have no sound") for n in data.notes)


def test_of_several_files_of_a_clip_the_first_format_wins(tmp_path):
    data = read_dataset(
        folder_of(tmp_path, rows(), ["100.flac", "100.wav", "101.FLAC", "102.ogg", "102.flac", "103.wav"])
    )
    assert [p.name for p in data.audio.values()] == ["100.wav", "101.FLAC", "102.flac", "103.wav"]


def test_an_audio_folder_of_another_data_set_is_an_error(tmp_path):
    with pytest.raises(HacError, match="none of the 4 sound_ids") as e:
        read_dataset(folder_of(tmp_path, rows(), ["999.wav"]))
    assert "100" in e.value.what and e.value.where.endswith("audio")


def test_a_folder_without_audio_reads_with_a_note(tmp_path):
    data = read_dataset(folder_of(tmp_path, rows()))
    assert not data.has_audio and data.missing_audio == [] and "no audio folder" in data.notes[0]


def test_only_the_corpora_that_a_profile_names_are_opened(tmp_path):
    folder_of(tmp_path / "d", rows())
    folder_of(tmp_path / "e", rows())
    one = open_corpora(Profile("folder", "T", data=str(tmp_path / "d")), tmp_path / "made")
    both = open_corpora(
        Profile("folder", "T", data=str(tmp_path / "d"), evaluation=str(tmp_path / "e")), tmp_path / "made"
    )
    assert list(one) == ["dev"] and list(both) == ["dev", "evaluation"] and not (tmp_path / "made").exists()


def test_the_class_table_has_23_rows_in_taxonomy_order(tmp_path):
    table = describe(
        read_dataset(folder_of(tmp_path, pd.concat([rows(), rows(1).assign(sound_id="200", confidence="2")])))
    )
    assert table["class"].tolist() == list(CLASSES)
    assert table.loc[0, ["n", "mean_confidence", "uploaders"]].tolist() == [2, 3.5, 1]
    assert table["n"].sum() == 5 and table.loc[22, "n"] == 0


def test_texts_are_joined_in_order_without_tags_of_html_and_empty_parts():
    frame = pd.DataFrame(
        {"title": ["A  b", "", ""], "tags": ["x,y", "", "t"], "description": ["<a href='u'>c</a>\nd", "", ""]}
    )
    assert join_text(frame) == ["A b. x y. c d", "", "t"]
    assert join_text(frame, ("title",)) == ["A b", "", ""]


# real data ---------------------------------------------------------------------------------------


def test_mini_bst_reads_without_an_error(real):
    data = read_dataset(real / "mini_bst")
    assert len(data.frame) == len(data.audio) == 99 and data.missing_audio == []
    assert set(data.frame["class"]) == set(CLASSES)
    assert {p.suffix for p in data.audio.values()} == {".wav", ".flac", ".ogg", ".mp3"}


def test_the_real_labels_give_the_known_counts(real):
    data = read_dataset(real / "bsd10k_text")
    counts = describe(data).set_index("class")["n"]
    assert len(data.frame) == 10_956 and not data.has_audio
    assert counts.to_dict() == dict(zip(CLASSES, [
        683, 721, 323, 606, 528, 566, 362, 297, 806, 177, 364, 1211, 201, 279, 975, 166, 652,
        297, 208, 391, 207, 719, 217,
    ], strict=True))  # fmt: skip
    assert sum(t == "" for t in join_text(data.frame)) == 632
