"""clips.py: folders of anyone's clips, their labels, what was done to them, and what cannot be judged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from duovox.contracts import AudioError, DataError, LabelError
from duovox.data import prepare
from duovox.data.features import FULL_SCALE, open_features
from duovox.evaluation.clips import read_clips, read_files
from duovox.files import safe_name
from duovox.sound.audio import read_excerpt, write_audio

LABELS = ("low", "middle", "high")
RATE = 16000


def tone(samples: int = RATE, hz: float = 300.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(samples) / RATE)).astype(np.float32)


def test_a_folder_of_anyones_clips(tmp_path: Path) -> None:
    write_audio(tmp_path / "low" / "a.wav", tone(12000), RATE, parents=True)
    write_audio(tmp_path / "high" / "b.flac", tone(30000), 22050, parents=True)
    write_audio(tmp_path / "c.ogg", tone(), RATE)
    write_audio(tmp_path / "d.wav", tone(4000), RATE)
    (tmp_path / "d.json").write_text('\ufeff{"label": "middle", "seed": 3}', encoding="utf-8")
    (tmp_path / "low" / "notes.txt").write_text("no sound")
    for hidden in (".e.wav", "low/._a.wav", ".trash/f.wav"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"not sound")
    clips = read_clips(tmp_path, LABELS)
    assert clips.waves.shape == (4, RATE) and clips.labels == (None, "middle", "high", "low")
    assert clips.notes == (
        "1 clips were resampled from 22050 to 16000 Hz",
        "2 clips shorter than 16000 samples were padded with silence at their end",
        "1 clips longer than 16000 samples were cut to their loudest part",
    )


def test_the_nearest_folder_that_is_a_label_counts_in_any_spelling(tmp_path: Path) -> None:
    known = ("low", "fu\u0308nf", "a/b", "..")
    for folder in ("low/anna", "f\u00fcnf", safe_name("a/b"), safe_name("..") + "/2024"):
        write_audio(tmp_path / folder / "x.wav", tone(), RATE, parents=True)
    assert set(read_clips(tmp_path, known).labels) == set(known)


def test_of_a_long_clip_the_same_second_is_judged_as_is_trained_on(tmp_path: Path) -> None:
    late = np.concatenate([np.zeros(24000, np.float32), tone()])
    for label in ("low", "high"):
        for name in ("026290a6_nohash_0.wav", "026290a8_nohash_0.wav"):
            write_audio(tmp_path / "words" / label / name, late, RATE, parents=True)
    manifest = prepare(tmp_path / "words", tmp_path / "features", progress=False)
    stored = open_features(tmp_path / "features").waves[:] / FULL_SCALE
    judged = read_clips(tmp_path / "words", LABELS).waves
    heard = read_excerpt(tmp_path / "words" / "low" / "026290a6_nohash_0.wav", RATE, RATE).wave
    assert "4 clips longer than 16000 samples were cut to their loudest part" in manifest.notes
    for wave in (*stored, *judged):
        np.testing.assert_allclose(wave, heard, atol=1.01 / FULL_SCALE)
    np.testing.assert_allclose(heard, tone(), atol=1.01 / FULL_SCALE)


def test_silence_of_anyones_is_refused_and_that_of_a_model_counts(tmp_path: Path) -> None:
    for name, wave in (("a", tone()), ("b", np.zeros(RATE)), ("c", np.zeros(99)), ("d", tone())):
        write_audio(tmp_path / f"{name}.wav", wave, RATE)
    with pytest.raises(AudioError, match=r"^2 of 4 clips cannot be judged, the first: .*b\.wav: is silent .*; mend or remove them$"):
        read_clips(tmp_path, LABELS)
    clips = read_files(sorted(tmp_path.iterdir()), [None] * 4)
    assert clips.notes == ("2 clips are silent, and judged as they are",)
    assert [wave.any() for wave in clips.waves] == [True, False, False, True]
    (tmp_path / "b.wav").write_bytes(b"not sound")
    with pytest.raises(AudioError, match=r"1 of 4 clips cannot be judged, the first: .*b\.wav: is not sound"):
        read_files(sorted(tmp_path.iterdir()), [None] * 4)


def test_broken_links_are_passed_over_and_said(tmp_path: Path) -> None:
    write_audio(tmp_path / "low" / "a.wav", tone(), RATE, parents=True)
    (tmp_path / "low" / "b\n.wav").symlink_to(tmp_path / "gone.wav")
    os.symlink(tmp_path / "low", tmp_path / "low" / "again")
    clips = read_clips(tmp_path, LABELS)
    assert clips.labels == ("low",)
    assert clips.notes == (
        "low/again was passed over: is a link to a folder that it lies in",
        "low/b\\n.wav was passed over: is a broken link",
    )


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_clips(tmp_path / "nowhere", LABELS)
    with pytest.raises(DataError, match="no clips to judge"):
        read_clips(tmp_path, LABELS)
    write_audio(tmp_path / "seven" / "a.wav", tone(), RATE, parents=True)
    with pytest.raises(LabelError, match="does not know the label 'seven'; it knows low, middle, high"):
        read_clips(tmp_path, LABELS)
    (tmp_path / "seven" / "a.json").write_text('{"label": "low"')
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_clips(tmp_path, LABELS)
    (tmp_path / "seven" / "a.json").write_text('{"label": ["low"]}')
    with pytest.raises(LabelError, match=r"does not know the label \['low'\]"):
        read_clips(tmp_path, LABELS)
    (tmp_path / "seven" / "a.json").write_text('{"label": "low"}')
    (tmp_path / "seven" / "b.wav").write_text("not sound")
    with pytest.raises(AudioError, match=r"b\.wav"):
        read_clips(tmp_path, ("seven", *LABELS))
