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
from duovox.sound.audio import (
    Header,
    TooLongError,
    UnreadableError,
    as_wave,
    decode_audio,
    decode_sound,
    encode_audio,
    read_audio,
    read_excerpt,
    read_header,
    write_audio,
)
from duovox.sound.hearing import SilentError

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


def test_decodes_no_more_of_ten_minutes_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(600 * 8000, np.int16), 8000)
    read, frames = soundfile.SoundFile.read, []
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, *args, **more: frames.append(len(found := read(self, *args, **more))) or found
    )
    with pytest.raises(TooLongError, match=r"a\.wav: lasts longer than the 60 s allowed"):
        read_audio(tmp_path / "a.wav", RATE)
    assert 60 * 8000 < sum(frames) <= 61 * 8000


def test_a_small_file_that_gives_very_many_samples_is_stopped(tmp_path: Path) -> None:
    """Silence of 8 channels at 655 kHz is a few kilobytes of FLAC a second."""
    rate = 655350
    soundfile.write(tmp_path / "a.flac", np.zeros((3 * rate, 8), np.int16), rate)
    with pytest.raises(TooLongError, match="too many samples \\(8 channels at 655350 Hz\\)"):
        read_audio(tmp_path / "a.flac", RATE, max_seconds=10)
    assert len(read_audio(tmp_path / "a.flac", RATE, max_seconds=30)) == pytest.approx(3 * RATE, abs=1)


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


# as recorders write them


def wav_bytes(riff: int | None = None, data: int | None = None, cut: int | None = None, tail: bytes = b"") -> bytes:
    """A WAV file of `tone()` whose header claims these sizes, cut after so many bytes, with something behind the samples."""
    file = io.BytesIO()
    soundfile.write(file, tone(), RATE, format="WAV", subtype="PCM_16")
    content = bytearray(file.getvalue())
    assert content[36:40] == b"data" and len(content) == 44 + 2 * RATE
    for place, size in ((4, riff), (40, data)):
        if size is not None:
            content[place : place + 4] = size.to_bytes(4, "little")
    return bytes(content[:cut]) + tail


def flac_bytes(frames: int | None = None, cut: int | None = None, tail: bytes = b"", seconds: float = 1.0) -> bytes:
    """A FLAC file of `tone()` whose header claims so many frames (0: unknown, as from a stream)."""
    file = io.BytesIO()
    soundfile.write(file, tone(seconds), RATE, format="FLAC", subtype="PCM_16")
    content = bytearray(file.getvalue())
    if frames is not None:
        content[18:26] = ((int.from_bytes(content[18:26], "big") >> 36 << 36) | frames).to_bytes(8, "big")
    return bytes(content[:cut]) + tail


UNKNOWN = 2**32 - 1
LIST = b"LIST\x0c\0\0\0INFOISFT\0\0\0\0"


@pytest.mark.parametrize(
    "content",
    [
        wav_bytes(),
        wav_bytes(0, 0),
        wav_bytes(36, 0),
        wav_bytes(UNKNOWN, UNKNOWN),
        wav_bytes(2**31 - 1, 2**31 - 37),
        wav_bytes(2**31 + 36, 2**31),
        wav_bytes(36 + 2000, 2000),
        wav_bytes(None, 2000),
        wav_bytes(36 + 2000, None),
        wav_bytes(36 + 64000, 64000),
        wav_bytes(36 + 32000 + len(LIST), 32000, tail=LIST),
        wav_bytes(tail=b"TAG" + bytes(125)),
        flac_bytes(),
        flac_bytes(0),
        flac_bytes(2000),
        flac_bytes(50000),
        flac_bytes(2**36 - 1),
        flac_bytes(tail=bytes(5000)),
        flac_bytes(tail=b"TAG" + bytes(125)),
    ],
)
def test_all_that_is_there_is_read_whatever_the_header_says(content: bytes) -> None:
    sound = decode_sound(io.BytesIO(content))
    assert sound.samples.shape == (RATE, 1) and sound.rate == RATE and not sound.broken
    np.testing.assert_allclose(sound.samples[:, 0], tone(), atol=2**-14)


def test_a_limit_holds_while_reading_whatever_the_header_says() -> None:
    for content in (wav_bytes(0, 0), wav_bytes(36 + 2000, 2000), flac_bytes(0), flac_bytes(2000)):
        with pytest.raises(TooLongError, match=r"^lasts longer than the 0.9 s allowed$"):
            decode_sound(io.BytesIO(content), max_seconds=0.9)
        assert len(decode_sound(io.BytesIO(content), max_seconds=1.0).samples) == RATE


def test_of_a_file_that_breaks_off_the_part_that_is_there_is_heard() -> None:
    wav = decode_sound(io.BytesIO(wav_bytes(cut=44 + 20001)))
    np.testing.assert_allclose(wav.samples[:, 0], tone()[:10000], atol=2**-14)
    for content in (flac_bytes(cut=-5000, seconds=3), flac_bytes(0, cut=-5000, seconds=3)):
        flac = decode_sound(io.BytesIO(content))
        assert flac.broken and len(flac.samples) > 1.5 * RATE
        np.testing.assert_allclose(flac.samples[:, 0], tone(3)[: len(flac.samples)], atol=2**-14)
    assert "breaks off" in read_excerpt(io.BytesIO(content), RATE, 100).treatment.notes()[0]


@pytest.mark.parametrize("content", [wav_bytes(36, 0, cut=44), wav_bytes(0, 0, cut=44), wav_bytes(36 + len(LIST), 0, 44, LIST)])
def test_a_header_alone_holds_no_samples(content: bytes) -> None:
    with pytest.raises(AudioError, match="holds no samples"):
        read_excerpt(io.BytesIO(content), RATE, RATE)


def test_a_file_damaged_from_its_start_is_unreadable() -> None:
    content = flac_bytes()
    with pytest.raises(UnreadableError, match="is not sound that can be read"):
        decode_sound(io.BytesIO(content[:100] + b"\x55" * (len(content) - 100)))


def test_the_excerpt_of_a_file_is_its_loudest_second_and_errors_name_the_file(tmp_path: Path) -> None:
    quiet = np.zeros(24000, np.float32)
    path = write_audio(tmp_path / "late.flac", np.concatenate([quiet, tone()]), RATE)
    found = read_excerpt(path, RATE, RATE)
    np.testing.assert_allclose(found.wave, tone(), atol=2**-14)
    assert found.treatment.start == 24000
    with path.open("rb") as file:
        assert np.array_equal(read_excerpt(file, RATE, RATE).wave, found.wave)
    write_audio(tmp_path / "quiet.wav", quiet, RATE)
    with pytest.raises(SilentError, match=r"quiet\.wav: is silent"):
        read_excerpt(tmp_path / "quiet.wav", RATE, RATE)
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=r"link\.wav: is a broken link"):
        read_excerpt(tmp_path / "link.wav", RATE, RATE)


def test_an_error_about_a_strange_name_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[31m.wav"
    path.write_bytes(b"")
    with pytest.raises(AudioError) as caught:
        read_audio(path, RATE)
    assert str(caught.value).startswith(f"{tmp_path}/a\\nb\\x1b[31m.wav: is empty")
