"""The page listens: files chosen and dropped, the microphone, and sounds that the browser decodes."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from page.browsing import close, colours_in, expect, hasten, needs_a_browser, open_page, picture, probabilities

pytestmark = needs_a_browser


def check_heard(page: Any, title: str) -> None:
    expect(page.locator("#heard .title")).to_have_text(title)
    expect(page.locator("#answered .title")).to_have_text(re.compile("^the model says "))
    for card in ("#heard", "#answered"):
        assert sum(probabilities(page, card).values()) == pytest.approx(1, abs=1e-3)
        expect(page.locator(f"{card} .play")).to_be_enabled()
        expect(page.locator(f"{card} canvas")).to_be_visible()
        assert colours_in(picture(page, card)) > 50


def test_a_chosen_file_is_heard_and_answered(page: Any, spoken_three: Path) -> None:
    hasten(page)
    page.set_input_files("#file", spoken_three)
    check_heard(page, "spoken.wav")
    expect(page.locator("#heard .note")).to_contain_text("heard as three")
    expect(page.locator("#answered .title")).to_have_text("the model says three")


def test_a_dropped_file_is_heard(page: Any, spoken_three: Path) -> None:
    hasten(page)
    data = base64.b64encode(spoken_three.read_bytes()).decode()
    code = """data => {
        const transfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
        transfer.items.add(new File([bytes], "dropped.wav"));
        return transfer;
    }"""
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(code, data)})
    check_heard(page, "dropped.wav")


def test_a_second_is_recorded(page: Any) -> None:
    hasten(page)
    page.get_by_role("button", name="Record one second").click()
    check_heard(page, "your recording")  # the server refuses silence
    expect(page.locator("#heard .note")).to_have_text(re.compile(r"^1\.00 s · heard as "))


def test_sound_is_written_as_16_bit_wav(page: Any) -> None:
    code = """async channels => {
        const { encodeWav } = await import("/static/wav.js");
        return Array.from(new Uint8Array(await encodeWav(channels.map(one => Float32Array.from(one)), 44100).arrayBuffer()));
    }"""
    loud, quiet = [0, 0.5, -0.5, 1, -1, 2, -2], [0, 0, 0.1, 0, 0, 0, 0.25]
    for channels in ([loud], [loud, quiet]):
        data = io.BytesIO(bytes(page.evaluate(code, channels)))
        assert soundfile.info(data).subtype == "PCM_16"
        data.seek(0)
        samples, rate = soundfile.read(data, always_2d=True)
        assert rate == 44100 and samples == pytest.approx(np.clip(channels, -1, 1).T, abs=1e-4)


RECORD = """async ([data, name, type]) => {
    const context = new AudioContext();
    await context.resume();
    const sound = await context.decodeAudioData(Uint8Array.from(atob(data), character => character.charCodeAt(0)).buffer);
    const destination = context.createMediaStreamDestination();
    const source = new AudioBufferSourceNode(context, { buffer: sound });
    source.connect(destination);
    const recorder = new MediaRecorder(destination.stream, { mimeType: type });
    const parts = [];
    recorder.ondataavailable = event => parts.push(event.data);
    const stopped = new Promise(resolve => (recorder.onstop = resolve));
    recorder.start();
    source.start();
    await new Promise(resolve => (source.onended = resolve));
    recorder.stop();
    await stopped;
    const transfer = new DataTransfer();
    transfer.items.add(new File(parts, name));
    return transfer;
}"""
"""Plays a sound file into a recorder of the browser; gives what is dropped with the recording."""


NOTE_FILES = """() => {
    window.files = [];
    const append = FormData.prototype.append;
    FormData.prototype.append = function (name, file) { files.push(file); return append.apply(this, arguments); };
}"""
"""Lets `files` in the page be the files that it sends from now on."""


@pytest.mark.parametrize(("name", "kind"), [("voice.webm", "audio/webm;codecs=opus"), ("voice.m4a", "audio/mp4;codecs=opus")])
def test_what_the_server_does_not_read_is_decoded_by_the_browser(page: Any, spoken_three: Path, name: str, kind: str) -> None:
    if not page.evaluate("kind => MediaRecorder.isTypeSupported(kind)", kind):
        pytest.skip(f"this chromium records no {kind}")
    hasten(page)
    page.locator("h1").click()  # or it may not sound
    answers: list[int] = []
    page.on("response", lambda response: answers.append(response.status) if "/v1/classify" in response.url else None)
    page.evaluate(NOTE_FILES)
    data = base64.b64encode(spoken_three.read_bytes()).decode()
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(RECORD, [data, name, kind])})
    check_heard(page, name)
    expect(page.locator("#heard .note")).to_contain_text("heard as three")
    assert answers == [415, 200]
    head = bytes(page.evaluate("async () => Array.from(new Uint8Array(await files.at(-1).slice(0, 44).arrayBuffer()))"))
    assert head.startswith(b"RIFF") and head[8:16] == b"WAVEfmt "
    rate, bits = int.from_bytes(head[24:28], "little"), int.from_bytes(head[34:36], "little")
    assert (rate, bits) == (16000, 16)


def long_sound(path: Path, spoken: Path, seconds: int) -> Path:
    """A stereo file at 48 kHz in which the spoken second comes last."""
    word, rate = soundfile.read(spoken)
    samples = np.random.default_rng(0).normal(0, 1e-3, (48000 * seconds, 2))
    samples[-48000:] += np.repeat(word, 48000 // rate)[:, None]
    soundfile.write(path, samples, 48000)
    return path


def test_a_sound_that_is_too_large_as_it_is_is_sent_smaller(page: Any, spoken_three: Path, tmp_path: Path) -> None:
    hasten(page)
    path = long_sound(tmp_path / "studio.wav", spoken_three, 29)
    assert path.stat().st_size > 5 * 2**20
    page.set_input_files("#file", path)
    check_heard(page, "studio.wav")
    expect(page.locator("#heard .note")).to_contain_text("lasts 29 s, the loudest 1 s from")


def test_a_sound_that_is_too_long_is_not_sent(page: Any, spoken_three: Path, tmp_path: Path) -> None:
    page.set_input_files("#file", long_sound(tmp_path / "talk.wav", spoken_three, 40))
    expect(page.locator("#error")).to_have_text("talk.wav lasts 40 s; the server takes 30 s at most.")


MICROPHONES = {
    "forbidden": (
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'));",
        "does not let this page use the microphone",
    ),
    "missing": (
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'));",
        "No microphone was found",
    ),
}


@pytest.mark.parametrize("case", MICROPHONES)
def test_a_microphone_that_cannot_be_used_is_explained(browser: Any, server: str, case: str) -> None:
    script, words = MICROPHONES[case]
    page, complaints = open_page(browser, server, script=script)
    page.get_by_role("button", name="Record one second").click()
    expect(page.get_by_role("alert")).to_contain_text(words)
    close(page, complaints)


def test_a_browser_without_microphone_says_so(browser: Any, server: str) -> None:
    page, complaints = open_page(browser, server, script="Object.defineProperty(navigator, 'mediaDevices', {value: undefined});")
    expect(page.locator("#record")).to_be_disabled()
    expect(page.locator("#record-note")).to_contain_text("Choose a file instead")
    close(page, complaints)
