"""data/decoding.py: what is stored of a folder of words, what is left out, and that nothing is ever stale or half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from making import MEL, RATE, REAL, make_words, names, speakers, tone

from duovox.contracts import DataError, OutputError
from duovox.data import Held, SpeakerOptions, open_features, prepare, read_manifest, which_split
from duovox.data import decoding as decoding_module
from duovox.data.storage import ArrayWriter
from duovox.sound.audio import write_audio
from duovox.sound.mel import LogMel
from duovox.sound.placing import place


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words(tmp_path_factory.mktemp("data") / "words")


@pytest.fixture(scope="module")
def folder(words: Path) -> Path:
    prepare(words, words.parent / "features", progress=False)
    return words.parent / "features"


def test_prepared_features_are_the_clips(words: Path, folder: Path) -> None:
    features = open_features(folder, MEL)
    assert features.labels == ("no", "yes") and len(features.stems) == 18
    assert features.waves.shape == (18, MEL.clip_samples) and features.waves.dtype == np.int16
    assert features.log_mels.shape == (18, MEL.n_mels, MEL.frames) and features.log_mels.dtype == np.float16
    for index, stem in enumerate(features.stems):
        position = sorted(p.stem for p in (words / features.labels[features.label[index]]).iterdir()).index(stem)
        assert features.speakers[index] == stem.split("_")[0] and features.split[index] == which_split(stem)
        assert position == index % 9
        lasts = np.flatnonzero(features.waves[index])[-1] + 1
        assert lasts % 1000 in (0, 999)
    wave = torch.from_numpy(features.waves[:].astype(np.float32) / 2**15)
    np.testing.assert_allclose(features.log_mels, LogMel(MEL)(wave)[:, 0], atol=0.005)


def test_manifest_counts_and_statistics(folder: Path) -> None:
    manifest, features = read_manifest(folder), open_features(folder)
    assert manifest.counts == {label: {"train": 5, "validation": 2, "test": 2} for label in ("no", "yes")}
    assert manifest.skipped == {} and manifest.mel == MEL
    train = features.log_mels[features.indices("train")].astype(np.float64)
    got = features.statistics
    np.testing.assert_allclose([got.low, got.high, got.mean, got.std], [train.min(), train.max(), train.mean(), train.std()], rtol=1e-9)


def test_second_run_is_up_to_date(words: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(decoding_module, "read_excerpts", lambda *_: pytest.fail("decoded again"))
    assert prepare(words, folder) == read_manifest(folder)
    assert "up to date" in capsys.readouterr().err


def test_other_settings_are_said_where_a_folder_is_made_anew(words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for speaker, said in ((None, False), ("(.*)_nohash", True), ("(.*)_nohash", False)):
        prepare(words, tmp_path / "features", MEL, speakers=SpeakerOptions(speaker))
        assert ("made of other recordings or with other settings; it is made anew" in capsys.readouterr().err) == said


def test_result_does_not_depend_on_workers_or_place(words: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(words, tmp_path / "copy")
    manifest = prepare(tmp_path / "copy", tmp_path / "features", progress=False, workers=1)
    assert manifest.digest == read_manifest(folder).digest
    assert (tmp_path / "features" / "waves.npy").read_bytes() == (folder / "waves.npy").read_bytes()


def test_changed_settings_are_never_read_stale(words: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    first = prepare(words, out, progress=False)
    other = replace(MEL, fmin=50.0, n_mels=64)
    with pytest.raises(DataError, match=r"n_mels 64 wanted, 80 stored, fmin 50\.0 wanted, 0\.0 stored"):
        open_features(out, other)
    second = prepare(words, out, other, progress=False)
    assert second.digest != first.digest and open_features(out, other).log_mels.shape[1] == 64
    assert prepare(words, out, other, labels="yes,no", progress=False).labels == ("yes", "no")
    assert names(tmp_path) == ["features"]


def test_changed_files_are_never_read_stale(tmp_path: Path) -> None:
    words, out = make_words(tmp_path / "words"), tmp_path / "features"
    first = prepare(words, out, progress=False)
    clip = sorted((words / "no").iterdir())[0]
    before = clip.stat()
    write_audio(clip, tone(50), RATE, force=True)
    os.utime(clip, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))
    second = prepare(words, out, progress=False)
    assert second.inputs != first.inputs and second.digest != first.digest
    clip.unlink()
    assert sum(prepare(words, out, progress=False).counts["no"].values()) == 8


def test_force_builds_again(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(words, tmp_path / "features", progress=False)
    asked: list[Path] = []
    real = decoding_module.read_excerpts
    monkeypatch.setattr(decoding_module, "read_excerpts", lambda paths, *more: asked.extend(paths) or real(paths, *more))
    prepare(words, tmp_path / "features", progress=False, force=True)
    assert len(asked) == 18


def test_unusable_clips_among_good_ones_are_left_out_with_reasons(tmp_path: Path) -> None:
    words = make_words(tmp_path / "words")
    (words / "no" / "aaa.wav").write_text("this is a letter\n" * 100)
    (words / "no" / "bbb.ogg").write_bytes(b"")
    (words / "yes" / "ccc.m4a").write_bytes(b"1234")
    write_audio(words / "yes" / "ddd.wav", np.zeros(600 * 8000, np.float32), 8000)
    manifest = prepare(words, tmp_path / "features", progress=False)
    assert sorted(manifest.skipped) == ["no/aaa.wav", "no/bbb.ogg", "yes/ccc.m4a", "yes/ddd.wav"]
    for name, reason in [
        ("no/aaa.wav", "not sound"),
        ("no/bbb.ogg", "is empty"),
        ("yes/ccc.m4a", "m4a"),
        ("yes/ddd.wav", "lasts longer than the 60 s"),
    ]:
        assert reason in manifest.skipped[name] and str(tmp_path) not in manifest.skipped[name]
    features = open_features(tmp_path / "features")
    assert len(features.stems) == 18 == len(features.log_mels) and np.load(tmp_path / "features" / "waves.npy").shape == (18, 16000)


def test_no_usable_audio(tmp_path: Path) -> None:
    for name in ("no/a.wav", "no/b.wav", "yes/a.wav", "yes/b.wav"):
        (tmp_path / "words" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "words" / name).write_text("words")
    with pytest.raises(DataError, match=r"no usable audio: all 4 files failed, the first, no/a\.wav: is not sound"):
        prepare(tmp_path / "words", tmp_path / "features", progress=False)
    assert names(tmp_path) == ["words"]


def test_label_left_with_one_clip_or_none_to_train_on(tmp_path: Path) -> None:
    words = make_words(tmp_path / "words", train=2, held=0)
    broken = sorted((words / "yes").iterdir())[0]
    broken.write_text("words")
    with pytest.raises(DataError, match="label 'yes' has 1 usable clips"):
        prepare(words, tmp_path / "features", progress=False)
    for number, speaker in enumerate(speakers("test", 2)):
        write_audio(words / "up" / f"{speaker}_nohash_0.wav", tone(number), RATE, parents=True)
    with pytest.raises(DataError, match="no clip of label 'up' falls into the train split"):
        prepare(words, tmp_path / "features", labels="no,up", progress=False)
    assert names(tmp_path) == ["words"]


def test_interrupted_run_leaves_nothing_and_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, out = make_words(tmp_path / "words"), tmp_path / "features"
    append = ArrayWriter.append

    def interrupted(self: ArrayWriter, rows: np.ndarray) -> None:
        append(self, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ArrayWriter, "append", interrupted)
        prepare(words, out, progress=False)
    assert names(tmp_path) == ["words"]
    first = prepare(words, out, progress=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ArrayWriter, "append", interrupted)
        prepare(words, out, progress=False, force=True)
    assert names(tmp_path) == ["features", "words"] and read_manifest(out) == first


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_full_disk_or_read_only_folder(words: Path, tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(ArrayWriter, "append", full)
    with pytest.raises(OutputError, match=os.strerror(code)):
        prepare(words, tmp_path / "features", progress=False)
    assert names(tmp_path) == []


def test_nothing_of_the_users_is_replaced(words: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("thesis", "file"):
        with pytest.raises(OutputError, match="no feature folder"):
            prepare(words, tmp_path / name, progress=False, force=True)
    for inside in (words, words / "features"):
        with pytest.raises(OutputError, match="must not lie inside"):
            prepare(words, inside, progress=False)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert prepare(words, tmp_path / "empty", progress=False).counts


def test_real_recordings(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("real recordings (../shared/data/speech_commands) are absent")
    for label in ("one", "three"):
        (tmp_path / "words" / label).mkdir(parents=True)
        for path in sorted((REAL / label).iterdir())[:20]:
            shutil.copy(path, tmp_path / "words" / label)
    manifest = prepare(tmp_path / "words", tmp_path / "features", progress=False)
    features = open_features(tmp_path / "features", MEL)
    assert manifest.skipped == {} and len(features.stems) == 40
    assert -12 < features.statistics.mean < -3 and 1 < features.statistics.std < 4
    assert np.median(np.abs(features.waves[:].astype(int)).max(axis=1)) > 1000


# features: what a recording can be


def with_clips(root: Path, label: str, waves: dict[str, np.ndarray], rate: int = RATE) -> Path:
    """`root` with more clips of a label, as 32-bit floats."""
    for name, wave in waves.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / label / name, wave, rate, subtype="FLOAT")
    return root


def stored(folder: Path, stem: str) -> np.ndarray:
    features = open_features(folder)
    return features.waves[features.stems.index(stem)].astype(np.float64) / 2**15


def test_of_a_long_recording_the_loudest_second_is_stored(tmp_path: Path) -> None:
    late = np.concatenate([np.zeros(24000, np.float32), tone(7)])
    words = with_clips(make_words(tmp_path / "words"), "no", {"zzz.wav": late})
    manifest = prepare(words, tmp_path / "features", progress=False)
    np.testing.assert_allclose(stored(tmp_path / "features", "zzz"), tone(7), atol=1.01 / 2**15)
    assert "1 clips longer than 16000 samples were cut to their loudest part" in manifest.notes


def test_of_channels_that_cancel_the_louder_is_stored(tmp_path: Path) -> None:
    words = with_clips(make_words(tmp_path / "words"), "no", {"zzz.wav": np.stack([0.9 * tone(7), -tone(7)], axis=1)})
    manifest = prepare(words, tmp_path / "features", progress=False)
    np.testing.assert_allclose(stored(tmp_path / "features", "zzz"), -tone(7), atol=1.01 / 2**15)
    assert "1 clips whose channels cancel were heard by their loudest channel alone" in manifest.notes


def test_silence_and_foreign_scales_are_left_out_with_the_reason(tmp_path: Path) -> None:
    nan = tone(7)
    nan[5] = np.nan
    bad = {"silent.wav": np.zeros(RATE), "scale.wav": 13000 * tone(7), "constant.wav": np.full(RATE, 0.1), "nan.wav": nan}
    words = with_clips(make_words(tmp_path / "words"), "no", bad)
    manifest = prepare(words, tmp_path / "features", progress=False)
    assert {name: reason.split(" (")[0] for name, reason in manifest.skipped.items()} == {
        "no/silent.wav": "is silent",
        "no/constant.wav": "is silent",
        "no/scale.wav": "is on another scale",
        "no/nan.wav": "holds 1 samples that are not finite numbers",
    }
    assert len(manifest.stems) == 18 and manifest.digest == prepare(make_words(tmp_path / "good"), tmp_path / "b", progress=False).digest


def test_a_label_that_is_all_silent_stops_the_preparation(tmp_path: Path) -> None:
    silent = {f"{number}.wav": np.zeros(RATE) for number in range(5)}
    words = with_clips(make_words(tmp_path / "words"), "up", silent)
    with pytest.raises(DataError, match=r"label 'up' has 0 usable clips \(5 were left out, the first, up/0\.wav: is silent"):
        prepare(words, tmp_path / "features", progress=False)
    assert names(tmp_path) == ["words"]


def test_a_recording_of_unknown_length_is_decoded(tmp_path: Path) -> None:
    words = with_clips(make_words(tmp_path / "words"), "no", {})
    path = write_audio(words / "no" / "zzz.flac", tone(7), RATE)
    content = bytearray(path.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])
    path.write_bytes(content)
    assert prepare(words, tmp_path / "features", progress=False).skipped == {}
    np.testing.assert_allclose(stored(tmp_path / "features", "zzz"), tone(7), atol=1.01 / 2**15)


def test_thin_splits_are_said(tmp_path: Path) -> None:
    words = make_words(tmp_path / "words", held=0)
    for speaker in speakers("test", 1):
        write_audio(words / "no" / f"{speaker}_nohash_0.wav", tone(3), RATE)
    assert prepare(words, tmp_path / "features", progress=False).notes[:2] == (
        "the validation split is empty: add clips of more speakers, or name some (--validation-speakers, split lists)",
        "the test split has no clip of yes",
    )


def test_names_are_kept_as_they_are_and_never_break_a_line(tmp_path: Path) -> None:
    words = make_words(tmp_path / "words")
    (words / "no" / "a\nb.wav").write_bytes(b"no sound")
    manifest = prepare(words, tmp_path / "features", progress=False)
    assert list(manifest.skipped) == ["no/a\nb.wav"] and manifest.skipped["no/a\nb.wav"].startswith("is not sound")


def test_impossible_workers(words: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 1, not 0"):
        prepare(words, tmp_path / "features", progress=False, workers=0)


def test_features_of_the_old_rule_are_built_again(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may hold the wrong second."""
    with monkeypatch.context() as patch:
        patch.setattr(decoding_module, "RULE", 1)
        old = prepare(words, tmp_path / "features", progress=False)
    new = prepare(words, tmp_path / "features", progress=False)
    assert new.inputs != old.inputs and new.digest == old.digest


def test_a_manifest_without_notes_is_still_read(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    facts = json.loads((copy / "manifest.json").read_text())
    del facts["notes"]
    (copy / "manifest.json").write_text(json.dumps(facts))
    assert read_manifest(copy).notes == () and len(open_features(copy).stems) == 18


def test_a_manifest_of_format_1_is_still_read(folder: Path, tmp_path: Path) -> None:
    """It says of speakers what the names of its clips say."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    facts = json.loads((copy / "manifest.json").read_text())
    for name in ("roots", "clip_roots", "speaker_rules", "languages", "placed"):
        del facts[name]
    (copy / "manifest.json").write_text(json.dumps(facts | {"format": 1}))
    assert read_manifest(copy).speaker_rules == {"name": 18} and open_features(copy).speaker_note == ""
    (copy / "manifest.json").write_text(json.dumps(facts | {"format": 1, "stems": [f"clip{number}" for number in range(18)]}))
    assert open_features(copy).speaker_note.startswith("the speakers are unknown and the split is by clip")


# several roots, speakers, languages, placing


def studio(root: Path, labels: tuple[str, ...], samples: int = 9000) -> Path:
    """A take of each label by four speakers, shorter than a clip."""
    for number, label in enumerate(labels):
        for who in ("01", "02", "04", "10"):
            noise = 0.1 * np.random.default_rng([number, int(who), len(root.name)]).normal(0, 1, samples) * np.hanning(samples)
            write_audio(root / label / f"speaker-{who}_a.wav", noise.astype(np.float32), RATE, parents=True)
    return root


HELD = SpeakerOptions(r"speaker-(\d+)", Held.of("04", "10"), ("en", "de"))


def test_several_roots_are_one_folder_of_features(tmp_path: Path) -> None:
    roots = [studio(tmp_path / "english", ("no", "zero")), studio(tmp_path / "deutsch", ("null", "nein"))]
    (roots[1] / "null" / "broken.wav").write_text("no sound")
    manifest = prepare(roots, tmp_path / "features", progress=False, speakers=HELD)
    features = open_features(tmp_path / "features")
    assert manifest.roots == ("english", "deutsch") and manifest.languages == {"no": "en", "zero": "en", "null": "de", "nein": "de"}
    assert features.languages == manifest.languages and features.labels == ("zero", "nein", "no", "null")
    assert [manifest.roots[root] for root in manifest.clip_roots] == ["english"] * 4 + ["deutsch"] * 4 + ["english"] * 4 + ["deutsch"] * 4
    assert dict(zip(features.speakers, features.split, strict=True)) == {"01": "train", "02": "train", "04": "test", "10": "validation"}
    assert list(manifest.skipped) == ["deutsch/null/broken.wav"] and manifest.speaker_rules == {"pattern": 16}
    assert prepare(roots, tmp_path / "features", progress=False, speakers=HELD) == manifest
    assert features.speaker_note == "" and not any("nearly the same" in note for note in manifest.notes)


def test_names_that_two_roots_share_begin_with_the_root(tmp_path: Path) -> None:
    roots = [studio(tmp_path / "a", ("no", "zero")), studio(tmp_path / "bb", ("no", "up"))]
    manifest = prepare(roots, tmp_path / "features", progress=False, speakers=SpeakerOptions(HELD.pattern, HELD.held))
    stems = {(manifest.labels[label], stem) for label, stem in zip(manifest.clip_labels, manifest.stems, strict=True)}
    assert len(stems) == 16 and {("no", "a/speaker-01_a"), ("no", "bb/speaker-01_a"), ("up", "speaker-01_a")} <= stems


def test_other_speakers_or_languages_or_places_are_never_read_stale(tmp_path: Path) -> None:
    root, out = studio(tmp_path / "words", ("no", "zero")), tmp_path / "features"
    first = SpeakerOptions(HELD.pattern, HELD.held)
    options = [first, replace(first, held=Held.of("02", "10")), replace(first, languages=("en",))]
    made = [prepare(root, out, progress=False, speakers=one) for one in options]
    made.append(prepare(root, out, progress=False, speakers=first, placed=True))
    assert len({manifest.inputs for manifest in made}) == 4
    assert made[1].digest != made[0].digest == made[2].digest != made[3].digest
    assert made[2].languages == {"no": "en", "zero": "en"} and made[0].languages == {}


def test_short_clips_are_placed_by_their_label_and_name(tmp_path: Path) -> None:
    root = studio(tmp_path / "words", ("no", "zero"))
    with_clips(root, "no", {"speaker-01_long.wav": tone(7)})
    speakers = SpeakerOptions(HELD.pattern, HELD.held)
    manifest = prepare(root, tmp_path / "features", progress=False, speakers=speakers, placed=True)
    plain = prepare(root, tmp_path / "plain", progress=False, speakers=speakers)
    note = "8 clips shorter than 16000 samples were put at a drawn place, the rest filled with noise like their own floor"
    assert manifest.placed == 8 and note in manifest.notes and not any("padded" in text for text in manifest.notes)
    assert plain.placed == 0 and any("8 clips shorter than 16000 samples were padded" in text for text in plain.notes)
    np.testing.assert_allclose(stored(tmp_path / "features", "speaker-01_long"), tone(7), atol=1.01 / 2**15)
    clip, _ = soundfile.read(root / "zero" / "speaker-02_a.wav", dtype="float32")
    index = manifest.stems.index("speaker-02_a")  # of zero, the first label
    waves = open_features(tmp_path / "features").waves[index].astype(np.float64) / 2**15
    np.testing.assert_allclose(waves, place(clip, RATE, "zero/speaker-02_a"), atol=1.01 / 2**15)


def test_one_recording_in_two_splits_is_said(tmp_path: Path) -> None:
    root = studio(tmp_path / "words", ("no", "zero"))
    shutil.copy(root / "no" / "speaker-01_a.wav", root / "no" / "speaker-04_copy.wav")
    for placed in (False, True):
        manifest = prepare(root, tmp_path / "out", progress=False, speakers=SpeakerOptions(HELD.pattern, HELD.held), placed=placed)
        wanted = "no/speaker-04_copy.wav in test is no/speaker-01_a.wav in train"
        assert f"1 clips held out are nearly the same as one of another split: {wanted}" in manifest.notes


def test_what_cannot_be_leaves_nothing(tmp_path: Path) -> None:
    root = studio(tmp_path / "words", ("no", "zero"))
    for options in (SpeakerOptions("x(y)"), SpeakerOptions(HELD.pattern, Held.of("77")), SpeakerOptions(languages=("",))):
        with pytest.raises(DataError):
            prepare(root, tmp_path / "features", progress=False, speakers=options)
    with pytest.raises(DataError, match="given twice"):
        prepare([root, root], tmp_path / "features", progress=False)
    with pytest.raises(OutputError, match="must not lie inside"):
        prepare([studio(tmp_path / "b", ("no", "zero")), root], root / "features", progress=False)
    assert names(tmp_path) == ["b", "words"]
