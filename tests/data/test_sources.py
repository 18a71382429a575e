"""data/sources.py: labels, splits and speakers of small folders of words."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from making import RATE, REAL, make_words, tone

from duovox.contracts import DataError
from duovox.data import SC09, Held, SpeakerOptions, scan, which_split
from duovox.sound.audio import write_audio


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("026290a7_nohash_0", "validation"),  # in v0.01's validation_list.txt
        ("0c40e715_nohash_0", "test"),  # in v0.01's testing_list.txt
    ],
)
def test_official_rule_on_listed_clips(stem: str, split: str) -> None:
    assert which_split(stem) == split
    assert which_split(stem.replace("_0", "_7")) == split


def test_official_rule_is_the_published_formula() -> None:
    """100 * (sha1(speaker) mod 2^27) / (2^27 - 1): below 10 validation, below 20 test."""
    for stem, speaker in [("anna", "anna"), ("bob_nohash_3", "bob"), ("c_nohash_1_nohash_2", "c")]:
        percent = 100 * (int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 2**27) / (2**27 - 1)
        assert which_split(stem) == ("validation" if percent < 10 else "test" if percent < 20 else "train")


def test_official_rule_gives_the_official_lists() -> None:
    if not REAL.is_dir():
        pytest.skip("real recordings (../shared/data/speech_commands) are absent")
    for name, split in [("validation_list.txt", "validation"), ("testing_list.txt", "test")]:
        lines = (REAL / name).read_text().split()
        assert len(lines) > 1000
        assert {which_split(Path(line).stem) for line in lines} == {split}


def test_scan_finds_labels_in_order_and_ignores_the_rest(tmp_path: Path) -> None:
    make_words(tmp_path, ("two", "yes", "one"), train=2, held=0)
    for extra in ("_background_noise_/hum.wav", ".git/a.wav", "one/notes.txt", "one/.hidden.wav"):
        (tmp_path / extra).parent.mkdir(exist_ok=True)
        (tmp_path / extra).write_bytes(b"")
    found = scan(tmp_path)
    assert found.labels == ("one", "two", "yes")
    assert len(found.sources) == 6
    assert list(found.skipped) == ["one/notes.txt"] and ".txt" in found.skipped["one/notes.txt"]
    assert scan(tmp_path, "yes, one").labels == ("yes", "one")
    assert scan(tmp_path, ["two", "one"]).labels == ("two", "one")


def test_sc09_by_name(tmp_path: Path) -> None:
    make_words(tmp_path, (*SC09, "bird"), train=2, held=0)
    assert scan(tmp_path, "sc09").labels == SC09
    shutil.rmtree(tmp_path / "seven")
    with pytest.raises(DataError, match="no folder for the labels seven; there are zero, one"):
        scan(tmp_path, "sc09")


def test_speaker_in_two_splits_is_named(tmp_path: Path) -> None:
    make_words(tmp_path, train=3, held=0)
    stem = sorted((tmp_path / "no").iterdir())[0].stem
    (tmp_path / "validation_list.txt").write_text(f"no/{stem}.wav\n")
    (tmp_path / "testing_list.txt").write_text("")
    with pytest.raises(DataError, match=f"speaker '{stem.split('_')[0]}' is in two splits: .* in validation, .* in train"):
        scan(tmp_path)


def test_refuses_too_little(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        scan(tmp_path / "absent")
    with pytest.raises(DataError, match="at least 2 different labels are needed, got none"):
        scan(tmp_path)
    make_words(tmp_path, ("no",), train=3, held=0)
    with pytest.raises(DataError, match="got no"):
        scan(tmp_path)
    (tmp_path / "yes").mkdir()
    write_audio(tmp_path / "yes" / "a.wav", tone(0), RATE)
    with pytest.raises(DataError, match="label 'yes' has 1 usable clips"):
        scan(tmp_path)
    with pytest.raises(DataError, match="different labels"):
        scan(tmp_path, "no,no")


def test_deeper_folders_are_taken_in(tmp_path: Path) -> None:
    make_words(tmp_path, train=4, held=0)
    deep = tmp_path / "no" / "anna" / "2024"
    deep.mkdir(parents=True)
    for path in sorted((tmp_path / "no").glob("*.wav"))[::2]:
        path.rename(deep / path.name)
    found = scan(tmp_path)
    assert [source.label for source in found.sources] == ["no"] * 4 + ["yes"] * 4 and found.skipped == {}
    assert {source.path.parent.name for source in found.sources} == {"2024", "no", "yes"}


def test_what_lies_beside_and_broken_links_are_listed(tmp_path: Path) -> None:
    make_words(tmp_path, train=3, held=0)
    write_audio(tmp_path / "stray.wav", tone(0), RATE)
    (tmp_path / "README.md").write_text("about these words")
    (tmp_path / "up").symlink_to(tmp_path / "nowhere")
    (tmp_path / "no" / "link.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "yes" / "loop").symlink_to(tmp_path / "yes")
    (tmp_path / "yes" / "deep" / ".hidden").mkdir(parents=True)
    (tmp_path / "yes" / "deep" / "a.m4a").write_bytes(b"")
    found = scan(tmp_path)
    assert found.labels == ("no", "yes") and len(found.sources) == 6
    assert list(found.skipped) == ["stray.wav", "up", "no/link.wav", "yes/deep/a.m4a", "yes/loop"]
    assert found.skipped["no/link.wav"] == found.skipped["up"] == "is a broken link"
    assert found.skipped["stray.wav"] == "lies in no folder of a label"
    assert found.skipped["yes/loop"] == "is a link to a folder that it lies in"


def test_labels_match_in_any_unicode_form(tmp_path: Path) -> None:
    make_words(tmp_path, ("fu\u0308nf", "no"), train=2, held=0)
    for asked in ("fu\u0308nf,no", "f\u00fcnf,no", ["fu\u0308nf", "no"]):
        assert scan(tmp_path, asked).labels == ("f\u00fcnf", "no")


def test_folders_that_become_one_label_are_refused(tmp_path: Path) -> None:
    make_words(tmp_path, ("fu\u0308nf", "no"), train=2, held=0)
    write_audio(tmp_path / "f\u00fcnf" / "more.wav", tone(1), RATE, parents=True)
    with pytest.raises(DataError, match="has 2 folders called 'f\u00fcnf' that differ in their Unicode form alone; merge them"):
        scan(tmp_path)
    make_words(tmp_path, ("No", "yes"), train=2, held=0)
    with pytest.raises(DataError, match="the labels 'No' and 'no' differ in case alone; rename or merge their folders"):
        scan(tmp_path, "No,no")
    assert scan(tmp_path, "no,yes").labels == ("no", "yes")


@pytest.mark.parametrize(
    ("name", "fault"), [("a\nb", r"holds the character \\n"), (" ", "is empty"), ("a\x1bb", r"holds the character \\x1b")]
)
def test_folders_whose_names_cannot_be_labels(tmp_path: Path, name: str, fault: str) -> None:
    make_words(tmp_path, ("no", "yes", name), train=2, held=0)
    with pytest.raises(DataError, match=f"cannot be a label, its name {fault}; rename it") as caught:
        scan(tmp_path)
    assert "\n" not in str(caught.value)
    assert scan(tmp_path, "no,yes").labels == ("no", "yes")


def test_a_label_without_usable_clips_says_what_happened_to_its_files(tmp_path: Path) -> None:
    make_words(tmp_path, train=2, held=0)
    (tmp_path / "up").mkdir()
    for name in ("a.m4a", "b.m4a"):
        (tmp_path / "up" / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"label 'up' has 0 usable clips \(2 were left out, the first, up/a\.m4a: suffix \.m4a"):
        scan(tmp_path)


def test_labels_that_are_speakers_are_in_every_split(tmp_path: Path) -> None:
    for speaker in ("ann", "bob"):
        for number in range(40):
            write_audio(tmp_path / speaker / f"three-{number}.wav", tone(0, 1), RATE, parents=True)
    found = scan(tmp_path, options=SpeakerOptions(labels_are_speakers=True))
    assert {(source.speaker, source.split) for source in found.sources} == {
        (speaker, split) for speaker in ("ann", "bob") for split in ("train", "validation", "test")
    }
    assert all(source.split == which_split(source.name) for source in found.sources)
    assert found.speaker_rules == {"label": 80}
    assert found.notes[:2] == (
        "the labels are speakers and the split is by clip, so each is heard in training and test alike",
        "speakers: 2 by their labels (80 clips)",
    )
    for others in ({"pattern": r"-(\d+)"}, {"held": Held(("ann",))}):
        with pytest.raises(DataError, match=r"^where the labels are speakers each must be in every split; leave --speaker"):
            SpeakerOptions(labels_are_speakers=True, **others)  # type: ignore[arg-type]
