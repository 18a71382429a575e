"""serve/api.py, POST /v1/classify."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import tone
from serving import mel_of, serving, sound
from starlette.testclient import TestClient

from duovox import Duovox
from duovox.bundle import Bundle


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle) -> Duovox:
    return Duovox(tiny_bundle)


@pytest.fixture(scope="module")
def client(voice: Duovox) -> Iterator[TestClient]:
    with serving(voice) as client:
        yield client


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_a_sound_is_heard(client: TestClient, voice: Duovox, kind: str, tmp_path: Path) -> None:
    content = sound("mid", kind)
    (tmp_path / "sound").write_bytes(content)
    reply = client.post("/v1/classify", files={"file": ("mid.wav", content)}).json()
    heard = voice.listen(tmp_path / "sound")
    assert reply["probabilities"] == pytest.approx(heard.probabilities, abs=1e-6)
    assert reply["label"] == max(heard.probabilities, key=heard.probabilities.__getitem__)
    assert reply["seconds"] == pytest.approx(0.24)
    assert np.abs(mel_of(reply["mel"]) - heard.log_mel).max() < np.ptp(heard.log_mel) / 255


def test_of_a_long_sound_the_loudest_part_is_shown(client: TestClient) -> None:
    wave = np.concatenate([np.zeros(20000, np.float32), tone("high", 1), np.zeros(20000, np.float32)])
    file = io.BytesIO()
    soundfile.write(file, wave, 16000, format="WAV", subtype="FLOAT")
    reply = client.post("/v1/classify", files={"file": ("x", file.getvalue())}).json()
    assert reply["seconds"] == len(wave) / 16000
    assert mel_of(reply["mel"]).mean(0).min() > -9  # all columns are of the tone, none of the silence
