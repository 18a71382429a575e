"""data/noisy.py: speech and noise in the ratio asked for, folders of noise, and noisy feature folders that are never stale."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from duovox.config import Recipe
from duovox.contracts import DataError, DuovoxError, OutputError
from duovox.data import add_background, open_features, read_manifest
from duovox.data.features import FULL_SCALE
from duovox.data.noisy import Backgrounds, mix, noisy_waves, read_backgrounds
from duovox.data.storage import ArrayWriter
from duovox.sound.audio import write_audio
from duovox.sound.mel import LogMel

RATE, SAMPLES = 16000, 3840


def decibels(speech: np.ndarray, noise: np.ndarray) -> float:
    """The ratio of two mean powers."""
    powers = (np.mean(np.square(wave, dtype=np.float64)) for wave in (speech, noise))
    return float(10 * np.log10(next(powers) / next(powers)))


def hiss(seed: int, samples: int = SAMPLES, most: float = 0.1) -> np.ndarray:
    """Uniform noise (samples,) float32, whose peak is never far above its power."""
    return np.random.default_rng(seed).uniform(-most, most, samples).astype(np.float32)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings, one at another rate, and things that are no sound."""
    folder = tmp_path_factory.mktemp("noise")
    write_audio(folder / "a.wav", hiss(0, 9000), RATE)
    write_audio(folder / "b.flac", hiss(1, 3000), RATE // 2)
    (folder / "README.md").write_text("where this comes from")
    return folder


@pytest.fixture(scope="module")
def noisy(tiny_features: Path, noise: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_features` with that noise at 10 dB. Change nothing in it."""
    out = tmp_path_factory.mktemp("noisy") / "10dB"
    add_background(tiny_features, noise, out, 10.0)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """All but what a judge made of the clips and keeps there."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def assert_one_line(error: DuovoxError, *words: str) -> None:
    assert "\n" not in str(error) and all(word in str(error) for word in words), error


# mixing


@pytest.mark.parametrize("snr", [-20.0, -3.0, 0.0, 10.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_mixed_powers_differ_by_the_decibels_asked_for(snr: float, seed: int) -> None:
    wave, background = np.random.default_rng(seed).normal(0, [[0.02], [0.3]], (2, SAMPLES)).astype(np.float32)
    mixed = mix(wave, background, snr)
    assert mixed.dtype == np.float32 and decibels(wave, mixed - wave) == pytest.approx(snr, abs=1e-4)


def test_a_sum_that_would_clip_is_made_quieter_and_keeps_its_ratio() -> None:
    wave, background = hiss(0, most=0.9), hiss(1)
    mixed = mix(wave, background, 0.0)
    assert np.abs(mixed).max() == pytest.approx(1, abs=1e-6)
    parts, left, _, _ = np.linalg.lstsq(np.stack([wave, background], axis=1).astype(np.float64), mixed, rcond=None)
    assert left == pytest.approx(0, abs=1e-8), "nothing but speech and noise, so nothing was cut off"
    assert parts[0] < 0.9 and decibels(parts[0] * wave, parts[1] * background) == pytest.approx(0, abs=1e-4)


def test_silence_on_either_side_leaves_the_wave() -> None:
    wave, silence = hiss(0), np.zeros(SAMPLES, np.float32)
    assert np.array_equal(mix(wave, silence, 10.0), wave) and np.array_equal(mix(silence, wave, 10.0), silence)


def test_a_seed_draws_the_stretch_and_longer_recordings_are_drawn_more_often() -> None:
    """A constant of +1 three times as long as one of -1: the sign of what was added tells which was drawn."""
    both = Backgrounds((np.full(6000, 1, np.float32), np.full(2000, -1, np.float32)), "")
    wave = np.full(2000, 0.1, np.float32)
    drawn = [float((both.add_to(wave, 20.0, (seed,)) - wave).mean()) for seed in range(400)]
    assert np.abs(drawn) == pytest.approx(np.full(400, 0.01), rel=1e-4)
    assert np.mean(np.sign(drawn)) == pytest.approx(0.5, abs=0.1)
    assert np.array_equal(both.add_to(wave, 0.0, (3, 4)), both.add_to(wave, 0.0, [3, 4]))


def test_a_stretch_may_start_anywhere() -> None:
    wave, noise = hiss(0, 998), hiss(1, 1000)
    wanted = {mix(wave, noise[start : start + 998], 10.0).tobytes() for start in range(3)}
    assert {Backgrounds((noise,), "").add_to(wave, 10.0, (seed,)).tobytes() for seed in range(40)} == wanted


# folders of noise


def test_halves_share_no_sample_and_need_two_clips() -> None:
    noise = np.arange(10, dtype=np.float32)
    first, second = Backgrounds((noise, noise[:9]), "x").halves(4)
    assert [list(wave) for wave in (*first.waves, *second.waves)] == [[0, 1, 2, 3, 4], [0, 1, 2, 3], [5, 6, 7, 8, 9], [4, 5, 6, 7, 8]]
    assert len({first.digest, second.digest, "x"}) == 3
    with pytest.raises(DataError, match="a noise recording has 9 samples, two clips 10: half of it is for training; give longer ones"):
        Backgrounds((noise, noise[:9]), "x").halves(5)


def test_backgrounds_are_all_sounds_of_a_folder_at_one_rate(noise: Path, tmp_path: Path) -> None:
    found = read_backgrounds(noise, RATE, SAMPLES)
    assert [len(wave) for wave in found.waves] == [9000, 6000] and all(wave.dtype == np.float32 for wave in found.waves)
    assert found.waves[0] == pytest.approx(hiss(0, 9000), abs=1.01 / FULL_SCALE)
    copy = Path(shutil.copytree(noise, tmp_path / "copy"))
    assert read_backgrounds(copy, RATE, SAMPLES).digest == found.digest
    write_audio(copy / "a.wav", hiss(0, 9000) * np.r_[0.5, np.ones(8999)], RATE, force=True)
    assert read_backgrounds(copy, RATE, SAMPLES).digest != found.digest


def test_recordings_of_minutes_are_taken(tmp_path: Path) -> None:
    """The longest background of Speech Commands lasts 95 s."""
    write_audio(tmp_path / "hum.wav", np.ones(95 * 1000, np.float32), 1000)
    assert len(read_backgrounds(tmp_path, 1000, 1000).waves[0]) == 95 * 1000


def test_folders_that_cannot_be_used_are_one_line(noise: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as found:
        read_backgrounds(tmp_path / "nowhere", RATE, SAMPLES)
    assert_one_line(found.value, "nowhere holds no sound files", ".wav")
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.raises(DataError) as found:
        read_backgrounds(tmp_path, RATE, SAMPLES)
    assert_one_line(found.value, f"{tmp_path} holds no sound files", "folder of noise recordings")
    with pytest.raises(DataError) as found:
        read_backgrounds(noise, RATE, 6001)
    assert_one_line(found.value, "b.flac has 6000 samples, a clip 6001; give longer")
    write_audio(tmp_path / "quiet" / "a.wav", np.zeros(6000, np.float32), RATE, parents=True)
    with pytest.raises(DataError) as found:
        read_backgrounds(tmp_path / "quiet", RATE, SAMPLES)
    assert_one_line(found.value, "a.wav is silent, and no noise; take it out of the folder")
    (tmp_path / "broken.wav").write_text("not sound at all")
    with pytest.raises(DataError) as found:
        read_backgrounds(tmp_path, RATE, SAMPLES)
    assert_one_line(found.value, "noise: ", "broken.wav: is not sound")
    write_audio(tmp_path / "broken.wav", np.zeros(601 * 1000), 1000, force=True)
    with pytest.raises(DataError) as found:
        read_backgrounds(tmp_path, RATE, SAMPLES)
    assert_one_line(found.value, "broken.wav: lasts longer than the 600 s allowed")


# noisy features


def test_a_noisy_folder_holds_the_same_clips_in_noise(tiny_features: Path, noisy: Path, tiny_recipe: Recipe) -> None:
    clean, found = open_features(tiny_features), open_features(noisy, tiny_recipe.mel)
    assert found.labels == clean.labels and found.label.tolist() == clean.label.tolist() and found.split.tolist() == clean.split.tolist()
    assert found.stems == clean.stems and found.speakers == clean.speakers and found.digest != clean.digest
    assert read_manifest(noisy).counts == read_manifest(tiny_features).counts
    waves = torch.from_numpy(found.waves[:].astype(np.float32) / FULL_SCALE)
    np.testing.assert_allclose(found.log_mels, LogMel(tiny_recipe.mel)(waves)[:, 0], atol=0.005)


def test_statistics_are_those_of_the_noisy_train_clips(tiny_features: Path, noisy: Path) -> None:
    features, got = open_features(noisy), open_features(noisy).statistics
    train = features.log_mels[features.indices("train")].astype(np.float64)
    np.testing.assert_allclose([got.low, got.high, got.mean, got.std], [train.min(), train.max(), train.mean(), train.std()], rtol=1e-9)
    assert got.mean > open_features(tiny_features).statistics.mean + 0.5, "noise fills the silence"


@pytest.mark.parametrize("snr", [10.0, 30.0])
def test_every_clip_has_its_ratio_but_for_rounding(tiny_features: Path, noise: Path, snr: float) -> None:
    features = open_features(tiny_features)
    clean = features.waves[:].astype(np.float64)
    mixed = np.concatenate(list(noisy_waves(features, read_backgrounds(noise, RATE, SAMPLES), snr))).astype(np.float64)
    assert np.abs(mixed).max() < FULL_SCALE - 1, "none of these is scaled down"
    assert [decibels(*pair) for pair in zip(clean, mixed - clean, strict=True)] == pytest.approx([snr] * len(clean), abs=0.01)


def test_a_clip_is_the_same_whichever_others_are_asked_for(tiny_features: Path, noise: Path, noisy: Path) -> None:
    features, backgrounds = open_features(tiny_features), read_backgrounds(noise, RATE, SAMPLES)
    test = features.indices("test")
    some = np.concatenate(list(noisy_waves(features, backgrounds, 10.0, indices=test)))
    assert np.array_equal(some, open_features(noisy).waves[test])
    assert not np.array_equal(some, np.concatenate(list(noisy_waves(features, backgrounds, 10.0, seed=1, indices=test))))


def test_the_digest_tells_ratio_seed_and_noise_apart(tiny_features: Path, noise: Path, noisy: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "other" / "a.wav", hiss(7, 9000), RATE, parents=True)
    made = [
        read_manifest(noisy),
        add_background(tiny_features, noise, tmp_path / "ratio", 5.0),
        add_background(tiny_features, noise, tmp_path / "seed", 10.0, seed=1),
        add_background(tiny_features, tmp_path / "other", tmp_path / "noise", 10.0),
    ]
    assert len({manifest.digest for manifest in made}) == 4 and len({manifest.inputs for manifest in made}) == 4


def test_a_second_call_does_nothing_and_another_place_has_the_same_bytes(
    tiny_features: Path, noise: Path, noisy: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in noisy.iterdir()}
    assert add_background(tiny_features, noise, noisy, 10.0) == read_manifest(noisy)
    assert {path: path.stat().st_mtime_ns for path in noisy.iterdir()} == before
    add_background(tiny_features, noise, tmp_path / "again", 10.0)
    assert contents(tmp_path / "again") == contents(noisy) and [path.name for path in tmp_path.iterdir()] == ["again"]


def test_changed_inputs_and_damage_are_never_read_stale(tiny_features: Path, noise: Path, noisy: Path, tmp_path: Path) -> None:
    source, out = Path(shutil.copytree(tiny_features, tmp_path / "source")), tmp_path / "out"
    add_background(source, noise, out, 0.0)
    louder = open_features(out)
    add_background(source, noise, out, 10.0)
    assert contents(out) == contents(noisy) and louder.digest != read_manifest(out).digest
    facts = json.loads((source / "manifest.json").read_text())
    (source / "manifest.json").write_text(json.dumps(facts | {"digest": "of other clips"}))
    assert add_background(source, noise, out, 10.0).inputs != read_manifest(noisy).inputs
    add_background(tiny_features, noise, out, 10.0)
    assert contents(out) == contents(noisy)
    for name, damage in (("waves.npy", contents(noisy)["waves.npy"][:-9]), ("manifest.json", b"{")):
        (out / name).write_bytes(damage)
        add_background(tiny_features, noise, out, 10.0)
        assert contents(out) == contents(noisy), "what was broken is made again"


def test_nothing_but_feature_folders_is_replaced(tiny_features: Path, noise: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_features, tmp_path / "source"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    inside = "must not lie inside the data set"
    for place, words in ((tmp_path / "thesis", "is no feature folder"), (source, inside), (source / "noisy", inside)):
        with pytest.raises(OutputError) as found:
            add_background(source, noise, place, 10.0)
        assert_one_line(found.value, words)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine" and contents(source) == contents(tiny_features)


def test_mistakes_are_one_line_and_leave_what_was_there(
    tiny_features: Path, noise: Path, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    for source, sounds, words in ((gone, noise, "gone is no feature folder"), (tiny_features, gone, "gone holds no sound files")):
        with pytest.raises(DataError) as found:
            add_background(source, sounds, tmp_path / "out", 10.0)
        assert_one_line(found.value, words)
    out = Path(shutil.copytree(noisy, tmp_path / "out"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ArrayWriter, "append", full)
    with pytest.raises(OutputError) as failed:
        add_background(tiny_features, noise, out, 5.0)
    assert_one_line(failed.value, f"cannot write the feature folder {out}: No space left")
    assert contents(out) == contents(noisy) and [path.name for path in tmp_path.iterdir()] == ["out"]
