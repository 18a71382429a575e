"""data/lists.py: split lists as people and their systems write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from making import make_words

from duovox.contracts import DataError
from duovox.data import scan
from duovox.data.lists import clip_key, read_lists


def test_lists_match_by_label_and_stem_whatever_the_suffix(tmp_path: Path) -> None:
    make_words(tmp_path, train=3, held=0, suffix=".flac")
    stems = [p.stem for p in sorted((tmp_path / "no").iterdir())]
    (tmp_path / "validation_list.txt").write_text(f"no/{stems[0]}.wav\nyes/{stems[0]}.wav\n\nelsewhere/{stems[1]}.wav\n")
    (tmp_path / "testing_list.txt").write_text(f"no/{stems[1]}.wav\r\nyes/{stems[1]}.wav\r\n")
    splits = {(s.label, s.path.stem): s.split for s in scan(tmp_path).sources}
    for label in ("no", "yes"):
        assert [splits[label, stem] for stem in stems] == ["validation", "test", "train"]


def test_lists_that_do_not_fit(tmp_path: Path) -> None:
    make_words(tmp_path, train=3, held=0)
    (tmp_path / "validation_list.txt").write_text("no/who.wav\n")
    with pytest.raises(DataError, match="not both"):
        scan(tmp_path)
    (tmp_path / "testing_list.txt").write_text("yes/else.wav\n")
    with pytest.raises(DataError, match=r"none of the 1 clips named in validation_list\.txt is there \(no/who\.wav\)"):
        scan(tmp_path)
    (tmp_path / "testing_list.txt").write_text("no/who.flac\n")
    with pytest.raises(DataError, match="stands in both"):
        scan(tmp_path)
    (tmp_path / "testing_list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read"):
        scan(tmp_path)


def write_lists(root: Path, validation: bytes | str, test: bytes | str) -> None:
    for name, content in (("validation_list.txt", validation), ("testing_list.txt", test)):
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def splits_of(root: Path) -> list[str]:
    """The splits of the clips of `no` and then of `yes`, in the order of their names."""
    return [source.split for source in scan(root).sources]


SPELLINGS = {
    "as it should be": "{}/{}.wav\n",
    "another suffix": "{}/{}.flac\n",
    "no suffix": "{}/{}\n",
    "Windows": "{}\\{}.wav\r\n",
    "a leading dot": "./{}/{}.wav\n",
    "Windows with a leading dot": ".\\{}\\{}.wav\r\n",
    "quotes": '"{}/{}.wav"\n',
    "single quotes": " '{}\\{}.wav' \r\n",
    "two slashes": "{}//{}.wav\n",
    "old Macs": "{}/{}.wav\r",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_list_is_read_in_any_spelling(tmp_path: Path, spelling: str, encoding: str) -> None:
    make_words(tmp_path, train=3, held=0)
    stems = [path.stem for path in sorted((tmp_path / "no").iterdir())]
    lines = [SPELLINGS[spelling].format("no", stem) + SPELLINGS[spelling].format("yes", stem) for stem in stems]
    write_lists(tmp_path, lines[0].encode(encoding), ("\n" + lines[1]).encode(encoding))
    assert splits_of(tmp_path) == ["validation", "test", "train"] * 2
    assert scan(tmp_path).notes == ()


@pytest.mark.parametrize("wrong", ["validation_list.txt", "testing_list.txt"])
def test_each_list_must_match_something(tmp_path: Path, wrong: str) -> None:
    """Else what it holds out would go to train."""
    make_words(tmp_path, train=3, held=0)
    stems = [path.stem for path in sorted((tmp_path / "no").iterdir())]
    write_lists(tmp_path, f"no/{stems[0]}.wav\nyes/{stems[0]}.wav", f"no/{stems[1]}.wav\nyes/{stems[1]}.wav")
    (tmp_path / wrong).write_text("".join(f"no-{stem}.wav\n" for stem in (*stems, "x", "\x1b[1m")))
    with pytest.raises(DataError) as caught:
        scan(tmp_path)
    first = ", ".join(f"no-{stem}.wav" for stem in stems)
    assert str(caught.value).endswith(f"none of the 5 clips named in {wrong} is there ({first}, ...); write one a line, as label/name.wav")


def test_entries_that_match_nothing_are_counted_and_named(tmp_path: Path) -> None:
    make_words(tmp_path, train=3, held=0)
    stems = [path.stem for path in sorted((tmp_path / "no").iterdir())]
    gone = "".join(f"no/gone{number}.wav\n" for number in range(4))
    both = [f"no/{stem}.wav\nyes/{stem}.wav\n" for stem in stems]
    write_lists(tmp_path, both[0] + gone, both[1] + "bird/a.wav\nno/\x1b.wav\n")
    assert scan(tmp_path).notes == (
        "4 of 6 entries of validation_list.txt match no clip (no/gone0.wav, no/gone1.wav, no/gone2.wav, ...)",
        "1 of 4 entries of testing_list.txt match no clip (no/\\x1b.wav)",
        "1 of 4 entries of testing_list.txt are of other labels (bird/a.wav)",
    )


def test_deeper_clips_and_other_unicode_forms_match(tmp_path: Path) -> None:
    make_words(tmp_path, ("no", "fu\u0308nf"), train=3, held=0)
    stems = [path.stem for path in sorted((tmp_path / "no").iterdir())]
    for label in ("no", "fu\u0308nf"):
        (tmp_path / label / "anna").mkdir()
        (tmp_path / label / f"{stems[0]}.wav").rename(tmp_path / label / "anna" / f"{stems[0]}.wav")
    write_lists(
        tmp_path,
        f"no\\anna\\{stems[0]}.wav\nf\u00fcnf/anna/{stems[0]}.wav",
        f"no/{stems[1]}.wav\nf\u00fcnf/{stems[1]}.wav",
    )
    found = scan(tmp_path)
    assert found.labels == ("f\u00fcnf", "no") and found.notes == ()
    assert splits_of(tmp_path) == ["test", "train", "validation"] * 2


@pytest.mark.parametrize("entry", ["", "   ", '""', "./", "\ufeff"])
def test_empty_lines_stand_for_nothing(entry: str) -> None:
    assert clip_key(entry.strip("\ufeff")) == ""


def test_without_lists_there_are_none(tmp_path: Path) -> None:
    assert read_lists(tmp_path) is None
