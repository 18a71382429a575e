"""audio.py: what it reads, refuses and writes, with signals whose answer is known."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from duovox.contracts import AudioError, OutputError
from duovox.files import write_whole
from duovox.sound import audio
from duovox.sound.audio import Header, as_wave, decode_audio, encode_audio, fit_length, read_audio, read_header, write_audio

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"
RATE = 16000


def tone(seconds: float = 1.0, rate: int = RATE, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def test_reads_a_wav_as_it_is(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype="FLOAT")
    wave = read_audio(tmp_path / "a.wav", RATE)
    assert wave.dtype == np.float32
    np.testing.assert_array_equal(wave, tone())


@pytest.mark.parametrize(("suffix", "kind"), [("mp3", None), ("ogg", None), ("flac", None), ("opus", "OGG")])
def test_reads_stereo_at_another_rate(tmp_path: Path, suffix: str, kind: str | None) -> None:
    """Channels of 0.6 and 0.2 average to 0.4; 44.1 or 48 kHz becomes 16 kHz; codecs lose a little."""
    rate = 48000 if suffix == "opus" else 44100
    stereo = np.stack([tone(rate=rate, level=0.6), tone(rate=rate, level=0.2)], axis=1)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, stereo, rate, format=kind, subtype="OPUS" if suffix == "opus" else None)
    wave = read_audio(path, RATE)
    assert len(wave) == pytest.approx(RATE, abs=1200)  # mp3 pads
    middle = wave[4000:12000]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.4, rel=0.03)
    spectrum = np.abs(np.fft.rfft(middle))
    assert np.argmax(spectrum) == pytest.approx(440 * 8000 / RATE, abs=1)


def test_resampling_keeps_the_phase_and_drops_what_lies_above() -> None:
    np.testing.assert_allclose(as_wave(tone(rate=44100), 44100, RATE)[1000:-1000], tone()[1000:-1000], atol=1e-3)
    assert np.abs(as_wave(tone(rate=44100, hz=12000), 44100, RATE)[1000:-1000]).max() < 1e-3


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"these are words, not sound\n" * 40, "not sound"), (b"RIFF\x24\x00\x00\x00WAVEfmt ", "not sound")],
)
def test_refuses_what_is_no_sound(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=words) as caught:
        read_audio(path, RATE)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_open_file_is_read_as_one_with_a_name(tmp_path: Path) -> None:
    wave = np.sin(np.arange(4000) / 5)
    path = write_audio(tmp_path / "a.flac", wave, 8000)
    content = path.read_bytes()
    assert encode_audio(wave, 8000, ".flac") == content
    with io.BytesIO(content) as file:
        assert read_header(file) == Header(4000, 8000, 1)
        assert file.tell() == 0
        assert np.array_equal(decode_audio(file, 16000), read_audio(path, 16000))
    with io.BytesIO(b"words" * 99) as file:
        for read in (read_header, lambda file: decode_audio(file, 8000)):
            with pytest.raises(AudioError, match=r"^is not sound that can be read .*readable are"):
                read(file)


def test_refuses_missing_folder_and_silence_of_no_length(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "a.wav", RATE)
    with pytest.raises(AudioError, match="is a folder"):
        read_audio(tmp_path, RATE)
    soundfile.write(tmp_path / "b.wav", np.zeros(0), RATE)
    with pytest.raises(AudioError, match=r"b\.wav: holds no samples"):
        read_audio(tmp_path / "b.wav", RATE)


def test_refuses_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "a.wav", tone(), RATE)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match="cannot be read: Permission denied"):
        read_audio(tmp_path / "a.wav", RATE)


def test_refuses_ten_minutes_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(600 * 8000, np.int16), 8000)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(AudioError, match="lasts 600 s, longer than the 60 s"):
        read_audio(tmp_path / "a.wav", RATE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_samples_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    wave = tone()
    wave[7] = bad
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="1 samples that are not finite"):
        read_audio(tmp_path / "a.wav", RATE)
    with pytest.raises(AudioError, match="not finite"):
        as_wave(wave, RATE, RATE)
    with pytest.raises(AudioError, match="not finite"):
        write_audio(tmp_path / "b.wav", wave, RATE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-(2**15), 0, 2**14], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
        (np.array([0.25, -0.5, 1.5], np.float64), [0.25, -0.5, 1.5]),
        ([0.25, -0.5, 0.0], [0.25, -0.5, 0]),
        (np.array([[0.2, 0.4], [0.6, 0.6], [0, 1.0]]), [0.3, 0.6, 0.5]),
        (np.array([[0.2, 0.6, 0.0], [0.4, 0.6, 1.0]]), [0.3, 0.6, 0.5]),
    ],
)
def test_arrays_of_known_samples(samples: object, expected: list[float]) -> None:
    wave = as_wave(samples, RATE, RATE)
    assert wave.dtype == np.float32
    np.testing.assert_allclose(wave, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (np.zeros(0), RATE, "no samples"),
        (np.zeros((2, 0)), RATE, "no samples"),
        (np.zeros((1, 2, 3)), RATE, "shape"),
        (np.float32(1), RATE, "shape"),
        (np.zeros(9, complex), RATE, "complex"),
        (np.zeros(9, np.int64), RATE, "int64"),
        ("three", RATE, "shape"),
        ([[1.0], [1.0, 2.0]], RATE, "array of samples"),
        (np.zeros(9), 0, "rate"),
        (np.zeros(9), -16000, "rate"),
        (np.zeros(9), float("nan"), "rate"),
        (np.zeros(9), "16000", "rate"),
        (np.zeros(61 * RATE), RATE, "lasts 61 s"),
        (np.zeros(1), 48000, "shorter than one sample"),
    ],
)
def test_refuses_arrays_that_are_no_sound(samples: object, rate: float, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        as_wave(samples, rate, RATE)


@given(length=st.integers(1, 50), wanted=st.integers(0, 60))
def test_fit_length_keeps_the_start_and_adds_zeros(length: int, wanted: int) -> None:
    wave = np.arange(1, length + 1, dtype=np.float32)
    fitted = fit_length(wave, wanted)
    assert fitted.shape == (wanted,) and fitted.dtype == np.float32
    np.testing.assert_array_equal(fitted[:length], wave[:wanted])
    assert not fitted[length:].any()


@settings(max_examples=20, deadline=None)
@given(samples=st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=200), suffix=st.sampled_from([".wav", ".flac"]))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, samples: list[float], suffix: str) -> None:
    path = tmp_path_factory.mktemp("round") / f"a{suffix}"
    write_audio(path, np.array(samples, np.float32), RATE)
    np.testing.assert_allclose(read_audio(path, RATE), np.clip(samples, -1, 1), atol=2**-14)


@pytest.mark.parametrize("suffix", list(audio.WRITABLE))
def test_the_same_sound_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first = write_audio(tmp_path / f"a{suffix}", tone(), RATE)
    second = write_audio(tmp_path / f"b{suffix}", tone(), RATE)
    assert first.read_bytes() == second.read_bytes()
    np.testing.assert_allclose(read_audio(first, RATE), tone(), atol=0.05)


def test_ogg_serial_is_fixed_and_its_checksum_is_libsndfiles(tmp_path: Path) -> None:
    """libsndfile draws the serial number at random and writes the checksum that ours must equal."""
    soundfile.write(tmp_path / "a.ogg", tone(), RATE)
    ogg = (tmp_path / "a.ogg").read_bytes()
    end = 27 + ogg[26] + sum(ogg[27 : 27 + ogg[26]])
    page = ogg[:22] + bytes(4) + ogg[26:end]
    assert audio._ogg_checksum(page) == int.from_bytes(ogg[22:26], "little")
    fixed = audio._with_fixed_serial(ogg)
    assert fixed[14:18] == bytes(4) and len(fixed) == len(ogg)


def test_refuses_unknown_suffix_and_names_the_known(tmp_path: Path) -> None:
    for name in ("a.mp3", "a"):
        with pytest.raises(OutputError, match=r"\.wav, \.flac, \.ogg"):
            write_audio(tmp_path / name, tone(), RATE)
    assert not list(tmp_path.iterdir())


def test_overwrites_only_with_force(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--force"):
        write_audio(path, tone(), RATE)
    assert path.read_bytes() == b"mine"
    write_audio(path, tone(), RATE, force=True)
    assert len(read_audio(path, RATE)) == RATE


def test_makes_folders_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.wav"
    with pytest.raises(OutputError, match="No such file or directory"):
        write_audio(path, tone(), RATE)
    assert not path.parent.exists()
    assert write_audio(path, tone(), RATE, parents=True) == path and path.is_file()


def test_refuses_a_folder_and_a_place_inside_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(OutputError, match="a folder"):
        write_audio(tmp_path / "folder.wav", tone(), RATE, force=True)
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match="Not a directory"):
        write_audio(tmp_path / "file" / "a.wav", tone(), RATE)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_full_disk_or_read_only_folder_leaves_nothing(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"mine")

    def half(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OutputError, match=os.strerror(code)) as caught:
        write_audio(path, tone(), RATE, force=True)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]


def test_write_whole_writes_any_content(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", b"{}")
    assert (tmp_path / "a.json").read_bytes() == b"{}"


def test_reads_real_recordings() -> None:
    folder = REAL / "speech_commands" / "three"
    if not folder.is_dir():
        pytest.skip("real recordings (../shared/data/speech_commands) are absent")
    for path in sorted(folder.iterdir())[:5]:
        wave = read_audio(path, RATE)
        assert 0.2 * RATE < len(wave) <= 1.01 * RATE
        assert 0.001 < np.abs(wave).max() < 1.2
