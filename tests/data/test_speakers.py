"""data/speakers.py, tables.py, splits.py and sources.py: who speaks in a clip, and that nobody is in two splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from making import speakers

from duovox.contracts import DataError
from duovox.data import Held, Scan, SpeakerOptions, scan, which_split
from duovox.data.speakers import Speakers, compile_pattern
from duovox.data.splits import Voice, assign
from duovox.data.tables import read_table

TRAIN, HELD = speakers("train", 3), speakers("test", 2)


def touch(root: Path, *clips: str) -> Path:
    """Empty files: nothing here reads sound."""
    for clip in clips:
        (root / clip).parent.mkdir(parents=True, exist_ok=True)
        (root / clip).touch()
    return root


def studio(root: Path, labels: Sequence[str], people: Sequence[str] = ("01", "02", "04", "10")) -> Path:
    """Two clips of each label by each speaker, named as in the Heidelberg Digits."""
    return touch(root, *(f"{label}/lang-x_speaker-{who}_trial-{take}.wav" for label in labels for who in people for take in (0, 1)))


def splits(found: Scan) -> dict[str, set[str]]:
    """Speaker -> splits of his or her clips."""
    result: dict[str, set[str]] = {}
    for source in found.sources:
        result.setdefault(source.speaker, set()).add(source.split)
    return result


NAMED = SpeakerOptions(r"speaker-(\d+)", Held.of("04", "10"))


# who speaks


def test_the_first_rule_that_says_something_counts(tmp_path: Path) -> None:
    (tmp_path / "speakers.csv").write_text("path,speaker\nno/anna/s1_nohash_0.wav,table\n")
    rules = Speakers(read_table(tmp_path), compile_pattern(r"s(\d)"), "words/")
    assert rules.of("no/anna/s1_nohash_0.ogg") == ("table", "table"), "the suffix does not matter"
    assert rules.of("no/anna/s2_nohash_0.wav") == ("2", "pattern")
    assert rules.of("no/anna/ab12_nohash_3.wav") == ("ab12", "name")
    assert rules.of("no/anna/deeper/a.wav") == ("words/anna", "folder")
    assert rules.of("no/a.wav") == ("words/a", "unknown")


def test_a_pattern_is_searched_in_the_whole_path_below_the_root(tmp_path: Path) -> None:
    touch(tmp_path / "speaker-9", *(f"{label}/session-{who}/take.wav" for label in ("no", "yes") for who in "ab"))
    found = scan(tmp_path / "speaker-9", options=SpeakerOptions(r"session-(\w)"))
    assert [source.speaker for source in found.sources] == ["a", "b", "a", "b"] and found.speaker_rules == {"pattern": 4}
    with pytest.raises(DataError, match="matches no file"):
        scan(tmp_path / "speaker-9", options=SpeakerOptions(r"speaker-(\d)"))


def test_a_group_that_takes_no_part_or_nothing_is_no_speaker() -> None:
    rules = Speakers(pattern=compile_pattern(r"no/(x)?"))
    assert rules.of("no/a.wav") == ("a", "unknown") and rules.of("no/xa.wav") == ("x", "pattern")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("speaker", "has 0 groups"),
        (r"(a)-(\d)", "has 2 groups"),
        ("(a", "is no regular expression"),
        (r"zz(\d)", "matches no file (the first is no/"),
    ],
)
def test_patterns_that_cannot_be_used(tmp_path: Path, pattern: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        scan(studio(tmp_path, ("no", "yes")), options=SpeakerOptions(pattern))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_folders_are_speakers_and_stay_together(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label}/{who}/{take}.wav" for label in ("no", "yes") for who in ("anna", "bob") for take in range(3)))
    found = scan(tmp_path)
    assert splits(found) == {who: {which_split(who)} for who in ("anna", "bob")}
    assert found.notes == ("speakers: 2 by folders <label>/<speaker> (12 clips)",)


def test_unknown_speakers_are_said_in_one_sentence(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{label}/{take}.wav" for label in ("no", "yes") for take in range(3)))
    sentence = "the speakers are unknown and the split is by clip, so a voice may be heard in training and test alike"
    assert scan(tmp_path).notes == (sentence,)
    touch(tmp_path, "no/anna/x.wav", "yes/anna/x.wav")
    assert scan(tmp_path).notes[0].startswith("the speakers of 6 of 8 clips are unknown and these are split by clip")
    official = touch(tmp_path / "official", *(f"{label}/{who}_nohash_0.wav" for label in ("no", "yes") for who in TRAIN))
    assert scan(official).notes == () and scan(official).speaker_rules == {"name": 6}


# the table


def table(root: Path, *lines: str) -> Path:
    studio(root, ("no", "yes"), ("01", "02"))
    (root / "speakers.csv").write_text("\n".join(lines))
    return root


def rows(*more: str) -> list[str]:
    """A row for every clip of `table`, with the same further cells."""
    clips = [f"{label}/lang-x_speaker-{who}_trial-{take}" for label in ("no", "yes") for who in ("01", "02") for take in (0, 1)]
    return [",".join([clip, clip.split("speaker-")[1][:2], *more]) for clip in clips]


def test_a_table_gives_speaker_split_and_language_and_says_what_it_does_not_use(tmp_path: Path) -> None:
    lines = [row + (",test" if ",01" in row else ",") + ",en,44" for row in rows()]
    found = scan(table(tmp_path, "path,speaker,split,language,age", *lines))
    assert splits(found) == {"01": {"test"}, "02": {which_split("02")}} and found.languages == {"no": "en", "yes": "en"}
    assert found.notes == ("speakers: 2 by speakers.csv (8 clips)", "columns of speakers.csv that are not used: age")


@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_every_office_are_read(tmp_path: Path, separator: str, encoding: str) -> None:
    table(tmp_path)
    lines = [row.replace("/", "\\").replace(",", separator) for row in ["path,speaker", *rows()]]
    (tmp_path / "speakers.csv").write_bytes("\r\n".join(lines).encode(encoding))
    assert splits(scan(tmp_path)).keys() == {"01", "02"}


def test_one_row_with_a_split_decides_for_the_speaker(tmp_path: Path) -> None:
    first, *others = rows("")
    assert splits(scan(table(tmp_path, "path,speaker,split", first + "validation", *others)))["01"] == {"validation"}


def test_clips_without_a_row_are_counted_and_go_by_the_other_rules(tmp_path: Path) -> None:
    found = scan(table(tmp_path, "path,speaker", *rows()[:-1]))
    assert found.speaker_rules == {"table": 7, "unknown": 1}
    assert "speakers.csv names no speaker for 1 of 8 clips (yes/lang-x_speaker-02_trial-1.wav)" in found.notes


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "has no column path and speaker (it has none)"),
        (["path,who", "no/a,1"], "has no column speaker (it has path, who)"),
        (["path,speaker", *rows(), "no/gone.wav,3", "oh/gone.wav,3"], "2 paths match no clip (no/gone.wav, oh/gone.wav)"),
        (["path,speaker,split", *rows("dev")], "line 2: the split 'dev' is none of train, validation, test"),
        (["path,speaker", "no/lang-x_speaker-01_trial-0,"], "line 2: the speaker is empty"),
        (["path,speaker", ",anna"], "line 2: the path is empty"),
        (["path,speaker,language", *rows("")], "line 2: the language '' is empty; write a code such as en"),
        (["path,speaker,language", *rows("English!")], "line 2: the language 'English!' is no code of a language"),
        (["path,speaker", *rows(), rows()[0].replace(",01", ",02")], "line 10: no/lang-x_speaker-01_trial-0 has another row"),
        (["path,speaker,split", rows("test")[0], *rows("train")[1:]], "speaker '01' is in two splits"),
    ],
)
def test_tables_that_cannot_be_used_are_one_line(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(DataError) as caught:
        scan(table(tmp_path, *lines))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_rows_of_labels_that_are_not_wanted_are_passed_over(tmp_path: Path) -> None:
    table(tmp_path, "path,speaker", *rows(), "up/a,1", "up/b,1")
    touch(tmp_path, "up/a.wav")
    assert scan(tmp_path, "no,yes").speaker_rules == {"table": 8}
    with pytest.raises(DataError, match=r"1 paths match no clip \(up/b\)"):
        scan(tmp_path)


# splits


def test_named_speakers_go_where_named_and_the_others_to_train(tmp_path: Path) -> None:
    found = scan(studio(tmp_path, ("no", "yes")), options=NAMED)
    assert splits(found) == {"01": {"train"}, "02": {"train"}, "04": {"test"}, "10": {"validation"}}


def test_without_names_the_official_rule_decides_for_every_speaker(tmp_path: Path) -> None:
    found = scan(studio(tmp_path, ("no", "yes")), options=SpeakerOptions(r"speaker-(\d+)"))
    assert splits(found) == {who: {which_split(who)} for who in ("01", "02", "04", "10")}


def test_what_decides_a_split_comes_in_this_order() -> None:
    """Names, then what table or lists give, then another clip of the speaker, then the official rule."""
    clips = [Voice(0, "a", "validation"), Voice(0, "b", None), Voice(1, "c", "test"), Voice(1, "c", None), Voice(1, HELD[0], None)]
    assert assign(clips, Held()) == (["validation", which_split("b"), "test", "test", "test"], set())
    assert assign(clips, Held.of(test="b")) == (["train", "test", "test", "test", "test"], {0})


def test_split_lists_are_put_aside_where_speakers_are_named_and_that_is_said(tmp_path: Path) -> None:
    studio(tmp_path, ("no", "yes"))
    for name, who in (("validation_list.txt", "01"), ("testing_list.txt", "02")):
        (tmp_path / name).write_text(
            "".join(f"{label}/lang-x_speaker-{who}_trial-{take}.wav\n" for label in ("no", "yes") for take in (0, 1))
        )
    assert splits(scan(tmp_path, options=SpeakerOptions(r"speaker-(\d+)")))["02"] == {"test"}
    found = scan(tmp_path, options=NAMED)
    assert splits(found)["02"] == {"train"} and splits(found)["04"] == {"test"}
    assert any(note.startswith(f"the speakers named decide the splits of {tmp_path.name}") for note in found.notes)


@pytest.mark.parametrize(
    ("test", "validation", "words"),
    [
        ("04,99", "", "no clip is of the test speaker '99'; there are 01, 02, 04, 10"),
        ("", "4", "no clip is of the validation speaker '4'; there are 04"),
        ("04,10", "10", "named for both test and validation: 10"),
        ("04,,10", "", "the test speakers hold an empty name"),
    ],
)
def test_names_that_cannot_be_held_out(tmp_path: Path, test: str, validation: str, words: str) -> None:
    studio(tmp_path, ("no", "yes"))
    with pytest.raises(DataError) as caught:
        scan(tmp_path, options=SpeakerOptions(r"speaker-(\d+)", Held.of(test, validation)))
    assert words in str(caught.value)


def test_every_speaker_in_two_splits_is_named(tmp_path: Path) -> None:
    studio(tmp_path, ("no", "yes"), ("01", "02", "04"))
    for name, label in (("validation_list.txt", "no"), ("testing_list.txt", "yes")):
        (tmp_path / name).write_text("".join(f"{label}/lang-x_speaker-{who}_trial-0.wav\n" for who in ("01", "02", "04")))
    with pytest.raises(DataError, match=r"speaker '01' is in two splits: .* in validation, .* in train \(and 2 other speakers: 02, 04\)"):
        scan(tmp_path, options=SpeakerOptions(r"speaker-(\d+)"))


# several roots


def test_labels_of_one_name_are_merged_and_every_clip_knows_its_root(tmp_path: Path) -> None:
    english, german = studio(tmp_path / "english", ("zero", "one")), studio(tmp_path / "german", ("null", "zero"))
    found = scan([english, german], options=NAMED)
    assert found.labels == ("zero", "one", "null") and found.roots == ("english", "german")
    assert [(s.label, s.root) for s in found.sources] == [("zero", 0)] * 8 + [("zero", 1)] * 8 + [("one", 0)] * 8 + [("null", 1)] * 8
    assert found.sources[8].name == "german/zero/lang-x_speaker-01_trial-0.wav"
    assert scan([english, german], "null,one").labels == ("null", "one")


def test_a_pattern_names_one_person_in_all_roots_and_folders_name_different_ones(tmp_path: Path) -> None:
    for root in ("a", "b"):
        touch(studio(tmp_path / root, ("no", "yes"), ("04", "01")), "no/anna/x.wav", "yes/anna/x.wav", f"no/{HELD[0]}_nohash_0.wav")
    found = scan([tmp_path / "a", tmp_path / "b"], options=SpeakerOptions(r"speaker-(\d+)", Held.of("04,a/anna")))
    assert splits(found) == {"04": {"test"}, "01": {"train"}, "a/anna": {"test"}, "b/anna": {"train"}, HELD[0]: {"train"}}


def test_each_root_keeps_its_own_lists_and_table(tmp_path: Path) -> None:
    listed = touch(tmp_path / "listed", *(f"{label}/{who}.wav" for label in ("no", "yes") for who in "abc"))
    (listed / "validation_list.txt").write_text("no/a.wav\nyes/a.wav")
    (listed / "testing_list.txt").write_text("no/b.wav\nyes/b.wav")
    tabled = table(tmp_path / "tabled", "path,speaker,split", *(row + (",test" if ",01" in row else ",train") for row in rows()))
    found = scan([listed, tabled])
    wanted = {"listed/a": {"validation"}, "listed/b": {"test"}, "listed/c": {"train"}, "01": {"test"}, "02": {"train"}}
    assert splits(found) == wanted and found.notes[0].startswith("the speakers of 6 of 14 clips are unknown")


def test_the_speakers_held_out_in_one_root_leave_the_lists_of_another(tmp_path: Path) -> None:
    listed = touch(tmp_path / "listed", *(f"{label}/{who}_nohash_0.wav" for label in ("no", "yes") for who in (*TRAIN, *HELD)))
    found = splits(scan([listed, studio(tmp_path / "studio", ("no", "yes"))], options=NAMED))
    assert all(found[who] == {"test"} for who in (*HELD, "04")) and all(found[who] == {"train"} for who in (*TRAIN, "01", "02"))


def test_roots_that_cannot_be_together(tmp_path: Path) -> None:
    root = studio(tmp_path / "a", ("no", "yes"))
    (tmp_path / "link").symlink_to(root)
    for roots, words in (
        ([root, tmp_path / "link"], "is given twice"),
        ([root, root / "no"], "one lies inside the other"),
        ([], "no folder of words was given"),
        ([root, studio(tmp_path / "b", ("No", "up"))], "the labels 'No' and 'no' differ in case alone"),
    ):
        with pytest.raises(DataError, match=words):
            scan(roots)
    with pytest.raises(DataError, match="has no folder for any of the labels"):
        scan([root, tmp_path / "b"], "no,yes")


def test_roots_of_one_name_are_told_apart(tmp_path: Path) -> None:
    roots = [studio(tmp_path / where / "words", ("no", "yes")) for where in ("a", "b")]
    assert scan(roots).roots == ("words", "words-2")


# languages


def test_languages_are_those_of_the_roots_but_where_the_table_says_otherwise(tmp_path: Path) -> None:
    english, german = studio(tmp_path / "english", ("zero", "one")), studio(tmp_path / "german", ("null", "eins"))
    both = scan([english, german], options=SpeakerOptions(languages=("en", "de")))
    assert both.languages == {"zero": "en", "one": "en", "null": "de", "eins": "de"}
    assert scan([english], options=SpeakerOptions(languages=("en",))).languages == {"zero": "en", "one": "en"}
    assert scan([english, german]).languages == {}
    mixed = table(tmp_path / "mixed", "path,speaker,language", *(row + (",en" if row.startswith("no") else ",de") for row in rows()))
    assert scan(mixed, options=SpeakerOptions(languages=("fr",))).languages == {"no": "en", "yes": "de"}


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (("en", ""), "the language '' is empty"),
        (("EN!",), "the language 'EN!' is no code of a language; write one such as en"),
        (("en", "de", "fr"), r"3 languages for 2 folders \(a, b\); give one for all, or one for each"),
        (("en", "de"), "the label 'no' has two languages, en in a and de in b"),
    ],
)
def test_languages_that_cannot_be(tmp_path: Path, codes: tuple[str, ...], words: str) -> None:
    roots = [studio(tmp_path / name, ("no", "yes")) for name in "ab"]
    with pytest.raises(DataError, match=words):
        scan(roots, options=SpeakerOptions(languages=codes))
