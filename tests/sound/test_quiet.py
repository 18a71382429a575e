"""quiet.py: what libmpg123 says of odd MP3 files does not reach standard error, what others say does."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duovox.contracts import AudioError
from duovox.sound.audio import decode_sound
from duovox.sound.quiet import quiet


def mp3(seconds: float = 1.0) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(np.arange(int(16000 * seconds)) / 5), 16000, format="MP3")
    return file.getvalue()


ODD = {
    "cut": mp3()[:-500],
    "damaged": mp3()[:1500] + b"\xaa" * 400 + mp3()[1900:],
    "junk": b"\xff\xfb\x90\x00" + b"junk" * 40000,
    "twice": mp3() + mp3(),
}


@pytest.mark.parametrize("kind", ODD)
def test_nothing_of_an_odd_file_reaches_standard_error(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        assert len(decode_sound(io.BytesIO(ODD[kind])).samples) > 4000
    except AudioError as error:
        assert kind == "junk" and "(nothing in it can be decoded)" in str(error)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["cut", "damaged", "junk"])
def test_without_this_there_would_be_remarks(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Else the test above could not fail."""
    try:
        soundfile.read(io.BytesIO(ODD[kind]))
    except soundfile.LibsndfileError:
        assert kind == "junk"
    assert capfd.readouterr().err


def test_what_others_write_meanwhile_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet(b"\xff\xfb"):
        os.write(2, b"[src/libmpg123/x.c:f():1] error: y\nnote of ours\n\nNote: Illegal header\nWarning: z\n")
    assert capfd.readouterr().err == "note of ours\n\n"
    with quiet(b"RIFF"):
        os.write(2, b"Note: nobody holds this back\n")
    assert capfd.readouterr().err == "Note: nobody holds this back\n"


def test_an_error_inside_puts_the_stream_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), quiet(b"ID3"):
        raise KeyError
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"


def test_without_a_standard_error_nothing_is_held(tmp_path: Path) -> None:
    """A service may run with the stream closed."""
    (tmp_path / "a.mp3").write_bytes(ODD["cut"])
    code = textwrap.dedent(
        """
        import os, sys
        from duovox.sound.audio import read_audio
        os.close(2)
        print(len(read_audio(sys.argv[1], 16000)) > 4000)
        """
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.mp3"], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
