"""The page in a real browser, against a real `duovox serve` with the bundle of the package.

Skipped where playwright or chromium is absent. Whatever a test does, the page may neither complain in the console nor break its
Content-Security-Policy, nor ask another origin for anything.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import duovox

pytest.importorskip("fastapi", reason="the server's parts are absent: pip install 'duovox[serve]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is absent: pip install playwright")
expect = sync_api.expect

PATIENCE = 60.0
"""Seconds to wait for anything; a busy machine is slow, and only a failure takes this long."""

expect.set_options(timeout=1000 * PATIENCE)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STATIC = Path(duovox.__file__).parent / "serve" / "static"
BUNDLE = Path(duovox.__file__).parent / "bundles" / "sc06"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is absent: apt-get install chromium"),
    pytest.mark.skipif(not BUNDLE.is_dir(), reason="no bundle sc06 in the package"),
]

WORDS = ("zero", "one", "two", "three", "four", "five")
AN_ANSWER_OF_THE_API = "Failed to load resource: the server responded with a status of"
"""What the console says of every 4xx; the tests that provoke one look at the page for it."""


# a server, a browser, a page that is watched


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a ready `duovox serve`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "duovox", "serve", "--port", str(port), "--device", "cpu"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, address)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


def wait_until_ready(process: subprocess.Popen[str], address: str) -> None:
    for _ in range(int(20 * PATIENCE)):
        assert process.poll() is None, process.communicate()[1]
        try:
            with urllib.request.urlopen(f"{address}/readyz"):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError("the server did not become ready")


@pytest.fixture(scope="module")
def spoken_three(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound file in which the model says three."""
    body = b'{"label": "three", "seed": 3, "steps": 8}'
    headers = {"Content-Type": "application/json", "Accept": "audio/wav"}
    path = tmp_path_factory.mktemp("sounds") / "spoken.wav"
    with urllib.request.urlopen(urllib.request.Request(f"{server}/v1/generate", body, headers)) as response:
        path.write_bytes(response.read())
    return path


@pytest.fixture(scope="module")
def browser(spoken_three: Path) -> Iterator[Any]:
    """One chromium for the module, whose microphone hears `spoken_three` again and again."""
    microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    arguments = ["--no-sandbox", *microphone, f"--use-file-for-fake-audio-capture={spoken_three}"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


def open_page(browser: Any, server: str, path: str = "/", script: str = "", **context: Any) -> tuple[Any, list[str]]:
    """A page in a context of its own, and the list of its complaints, which grows."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(1000 * PATIENCE)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if leaves(request.url, server) else None)
    if script:
        page.add_init_script(script)
    page.goto(server + path)
    return page, complaints


def leaves(url: str, server: str) -> bool:
    return not url.startswith((server, "blob:", "data:"))


def close(page: Any, complaints: list[str]) -> None:
    page.context.close()
    assert [text for text in complaints if not text.startswith(AN_ANSWER_OF_THE_API)] == []


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """The page, ready, on a desktop in light colours."""
    page, complaints = open_page(browser, server, viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.wait_for_selector("body.ready")
    yield page
    close(page, complaints)


def hasten(page: Any, steps: int = 2, gamma: float = 1) -> None:
    """Settings for tests to which any sound will do."""
    page.locator("#settings .gamma").fill(str(gamma))
    page.locator("#settings .steps").fill(str(steps))


def word(page: Any, name: str) -> Any:
    return page.locator("#words").get_by_role("button", name=name, exact=True)


def press(page: Any, name: str) -> dict[str, Any]:
    """Press a word, wait until its card shows it; gives the API's reply."""
    with page.expect_response("**/v1/generate") as waited:
        word(page, name).click()
    expect(page.locator("#spoken .title")).to_have_text(name)
    expect(page.locator("#spoken .clip")).not_to_have_attribute("aria-busy", "true")
    reply: dict[str, Any] = waited.value.json()
    return reply


def watch_texts(page: Any, selector: str) -> None:
    """Let `seen` in the page be the texts that an element has from now on, however short."""
    code = (
        "element => { window.seen = []; new MutationObserver(() => seen.push(element.textContent)).observe(element, {childList: true}); }"
    )
    page.locator(selector).evaluate(code)


def wait_for_texts(page: Any, *texts: str) -> None:
    """Wait until those are the texts seen."""
    deadline = time.monotonic() + PATIENCE
    while (seen := page.evaluate("seen")) != list(texts):
        assert time.monotonic() < deadline, seen
        page.wait_for_timeout(50)


def sound_of(reply: dict[str, Any]) -> np.ndarray:
    return soundfile.read(io.BytesIO(base64.b64decode(reply["clips"][0]["audio"])))[0]


def picture(page: Any, card: str) -> np.ndarray:
    """The pixels (80, 64, 4) of a card's canvas."""
    code = """canvas => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        return Array.from(copy.getImageData(0, 0, canvas.width, canvas.height).data);
    }"""
    return np.array(page.locator(f"{card} canvas").evaluate(code), np.uint8).reshape(80, 64, 4)


def colours_in(pixels: np.ndarray) -> int:
    return len(np.unique(pixels.reshape(-1, 4), axis=0))


def probabilities(page: Any, card: str) -> dict[str, float]:
    code = "items => items.map(item => [item.querySelector('.word').textContent, Number(item.querySelector('data').value)])"
    return dict(page.locator(f"{card} .bars li").evaluate_all(code))


# speaking


@pytest.mark.parametrize("name", ["three", "five"])
def test_a_press_speaks_the_word(page: Any, server: str, name: str) -> None:
    page.locator("#settings .steps").fill("8")
    reply = press(page, name)
    sound = sound_of(reply)
    assert sound.shape == (16000,) and np.sqrt(np.square(sound).mean()) > 0.005
    upload = {"name": "a.wav", "mimeType": "audio/wav", "buffer": base64.b64decode(reply["clips"][0]["audio"])}
    heard = page.request.post(f"{server}/v1/classify", multipart={"file": upload}).json()
    assert heard["label"] == name
    shown = probabilities(page, "#spoken")
    assert tuple(shown) == WORDS and sum(shown.values()) == pytest.approx(1, abs=1e-3)
    assert max(shown, key=shown.__getitem__) == name
    expect(page.locator("#spoken .bars .most .word")).to_have_text(name)
    widths = page.locator("#spoken .fill").evaluate_all("fills => fills.map(fill => parseFloat(fill.style.width))")
    assert widths == pytest.approx([100 * p for p in shown.values()], abs=0.06)


def test_the_sound_plays_and_can_be_stopped(page: Any) -> None:
    hasten(page)
    watch_texts(page, "#spoken .play span")
    press(page, "one")
    wait_for_texts(page, "Stop", "Play")  # it plays of itself, and ends
    code = "card => { const [button, head] = ['.play', '.playhead'].map(name => card.querySelector(name)); %s }"
    during = page.locator("#spoken").evaluate(code % "button.click(); const now = head.hidden; button.click(); return now;")
    assert during is False
    wait_for_texts(page, "Stop", "Play", "Stop", "Play")
    expect(page.locator("#spoken .playhead")).to_be_hidden()


def test_the_spectrogram_forms_and_can_be_scrubbed(page: Any) -> None:
    hasten(page, steps=6)
    reply = press(page, "zero")
    noise = page.locator("#spoken .scrubber output")
    expect(noise).to_have_text("finished")
    final = picture(page, "#spoken")
    assert colours_in(final) > 100
    levels = np.frombuffer(base64.b64decode(reply["clips"][0]["mel"]["data"]), np.uint8).reshape(80, 64)[::-1]
    brightness = final[..., :3].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert np.corrcoef(levels.ravel(), brightness.ravel())[0, 1] > 0.95
    slider = page.locator("#spoken .scrubber input")
    slider.focus()
    page.keyboard.press("Home")
    expect(noise).to_have_text(re.compile(r"^\u03c3 \d+$"))
    assert (picture(page, "#spoken") != final).any()
    page.keyboard.press("End")
    assert (picture(page, "#spoken") == final).all()


def test_the_spectrogram_has_axes(page: Any) -> None:
    assert page.locator("#spoken .hertz span").all_text_contents() == ["0", "500", "1000", "2000", "4000", "8000"]
    assert page.locator("#spoken .seconds span").all_text_contents() == ["0", "0.25", "0.5", "0.75", "1 s"]
    heights = page.locator("#spoken .hertz span").evaluate_all("spans => spans.map(span => parseFloat(span.style.bottom))")
    assert heights == sorted(heights) and heights[0] == 0 and heights[-1] == pytest.approx(100)


def test_the_same_seed_is_the_same_sound_and_another_is_not(page: Any) -> None:
    hasten(page)
    page.locator("#seed .lock").click()
    first, again = press(page, "two"), press(page, "two")
    assert first["clips"][0]["audio"] == again["clips"][0]["audio"]
    page.locator("#seed .seed-number").fill("7")
    other = press(page, "two")
    assert other["clips"][0]["seed"] == 7 and other["clips"][0]["audio"] != first["clips"][0]["audio"]


def test_an_unlocked_seed_changes_and_a_die_and_reset_work(page: Any) -> None:
    hasten(page)
    assert press(page, "two")["clips"][0]["seed"] == 0
    page.evaluate("Math.random = () => 0.5")
    assert press(page, "two")["clips"][0]["seed"] == 50000
    page.evaluate("Math.random = () => 0.25")
    page.get_by_role("button", name="Roll a new seed").first.click()
    assert press(page, "two")["clips"][0]["seed"] == 25000
    page.get_by_role("button", name="Reset to defaults").click()
    assert page.locator("#settings .gamma").input_value() == "3" and page.locator("#seed .seed-number").input_value() == "0"


def test_settings_travel_and_slider_and_number_agree(page: Any) -> None:
    page.locator("#settings .steps-slider").fill("3")
    assert page.locator("#settings .steps").input_value() == "3"
    page.locator("#settings .gamma").fill("0.5")
    assert page.locator("#settings .gamma-slider").input_value() == "0.5"
    page.locator("#settings .sampler").select_option("dpmpp_2m")
    reply = press(page, "four")
    assert {name: reply["settings"][name] for name in ("steps", "gamma", "sampler")} == {"steps": 3, "gamma": 0.5, "sampler": "dpmpp_2m"}
    expect(page.locator("#spoken .command")).to_have_text(reply["command"])


def test_anything_has_no_label(page: Any) -> None:
    hasten(page)
    assert press(page, "anything")["clips"][0]["label"] is None


def test_what_is_copied_and_downloaded(page: Any) -> None:
    hasten(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    reply = press(page, "one")
    for name in ("command", "python"):
        page.locator(f"[data-copy={name}]").click()
        expect(page.locator(f"[data-copy={name}]")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == reply[name]
    for suffix in ("wav", "flac", "ogg"):
        with page.expect_download() as waited:
            page.locator(f"[data-format={suffix}]").click()
        assert waited.value.suggested_filename == f"one_0.{suffix}"
        sound, rate = soundfile.read(waited.value.path())
        assert rate == 16000 and np.corrcoef(sound[:16000], sound_of(reply))[0, 1] > 0.9


# listening


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


def test_a_recording_is_written_as_16_bit_wav(page: Any) -> None:
    code = """async samples => {
        const { encodeWav } = await import("/static/wav.js");
        return Array.from(new Uint8Array(await encodeWav(Float32Array.from(samples), 44100).arrayBuffer()));
    }"""
    data = io.BytesIO(bytes(page.evaluate(code, [0, 0.5, -0.5, 1, -1, 2, -2])))
    assert soundfile.info(data).subtype == "PCM_16"
    data.seek(0)
    samples, rate = soundfile.read(data)
    assert rate == 44100 and samples == pytest.approx([0, 0.5, -0.5, 1, -1, 1, -1], abs=1e-4)


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


# errors, waiting, the token


def test_a_bad_file_is_refused_in_the_words_of_the_server(page: Any, spoken_three: Path, tmp_path: Path) -> None:
    hasten(page)
    path = tmp_path / "notes.wav"
    path.write_text("these are words, but no sound")
    with page.expect_response("**/v1/classify") as waited:
        page.set_input_files("#file", path)
    message = waited.value.json()["error"]["message"]
    expect(page.get_by_role("alert").locator("#error")).to_have_text(message)
    expect(page.get_by_role("alert")).to_be_visible()
    page.set_input_files("#file", spoken_three)
    expect(page.locator("#error")).to_have_text("")


def test_a_large_file_is_not_sent(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    path.write_bytes(bytes(6 * 2**20))
    page.set_input_files("#file", path)
    expect(page.locator("#error")).to_have_text("large.wav has 6.0 MB; the server takes 5.0 MB at most.")


def test_impossible_settings_are_refused_and_the_error_can_be_dismissed(page: Any) -> None:
    page.locator("#settings .steps").fill("1000")
    with page.expect_response("**/v1/generate") as waited:
        word(page, "one").click()
    assert waited.value.status == 422
    expect(page.locator("#error")).to_have_text(waited.value.json()["error"]["message"])
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator("#error")).to_be_hidden()


def test_a_server_that_is_gone_is_named(browser: Any, server: str) -> None:
    page, _ = open_page(browser, server)
    page.wait_for_selector("body.ready")
    page.route("**/v1/generate", lambda route: route.abort())
    word(page, "one").click()
    expect(page.locator("#error")).to_contain_text("The server does not answer")
    page.context.close()


def refuse_once(page: Any, pattern: str, status: int, message: str, headers: dict[str, str]) -> None:
    answer = f'{{"error": {{"code": "refused", "message": "{message}"}}}}'
    page.route(pattern, lambda route: route.fulfill(status=status, body=answer, headers=headers), times=1)


def test_a_busy_server_is_waited_for(page: Any) -> None:
    hasten(page)
    refuse_once(page, "**/v1/generate", 429, "the queue is full", {"Retry-After": "1"})
    watch_texts(page, "#status")
    word(page, "one").click()
    expect(page.locator("#spoken .title")).to_have_text("one")
    assert page.evaluate("seen").count("the queue is full (trying again in 1 s)") == 1
    expect(page.locator("#error")).to_have_text("")


def test_a_token_is_asked_for_and_kept_in_memory_only(page: Any) -> None:
    hasten(page)
    refuse_once(page, "**/v1/generate", 401, "a token is needed here", {"WWW-Authenticate": "Bearer"})
    word(page, "one").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("a token is needed here")
    with page.expect_request("**/v1/generate") as waited:
        page.keyboard.type("let-me-in")
        page.keyboard.press("Enter")
    assert waited.value.headers["authorization"] == "Bearer let-me-in"
    expect(page.locator("#spoken .title")).to_have_text("one")
    expect(dialog).to_be_hidden()
    assert page.locator("#token").input_value() == ""
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_no_token_is_an_error_in_the_words_of_the_server(page: Any) -> None:
    refuse_once(page, "**/v1/generate", 401, "a token is needed here", {})
    word(page, "one").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator("#error")).to_have_text("a token is needed here")


def hold_first(page: Any) -> list[Any]:
    """Hold the first request to generate for ever; gives the list of requests that failed, which grows."""
    failed: list[Any] = []
    page.on("requestfailed", lambda request: failed.append(request.post_data_json["label"]))
    page.route("**/v1/generate", lambda route: None, times=1)
    return failed


def test_a_request_can_be_cancelled(page: Any) -> None:
    failed = hold_first(page)
    word(page, "one").click()
    expect(page.locator("#spoken .working-text")).to_have_text("Speaking one…")
    page.locator("#spoken .cancel").click()
    expect(page.locator("#spoken .working")).to_be_hidden()
    expect(page.locator("#status")).to_have_text("Cancelled")
    expect(page.locator("#error")).to_have_text("")
    assert failed == ["one"]


def test_a_new_press_replaces_the_old(page: Any) -> None:
    hasten(page)
    failed = hold_first(page)
    word(page, "one").click()
    press(page, "two")
    assert failed == ["one"]
    expect(page.locator("#error")).to_have_text("")


# comparing


def test_two_settings_are_compared(page: Any) -> None:
    for side in "ab":
        page.locator(f"#settings-{side} .steps").fill("4")
    page.locator("#settings-b .sampler").select_option("dpmpp_2m")
    page.locator("#compare-label").select_option("four")
    page.locator("#compare-seed .seed-number").fill("5")
    sent: list[dict[str, Any]] = []
    page.on("request", lambda request: sent.append(request.post_data_json))
    page.get_by_role("button", name="Speak both").click()
    for side in "ab":
        expect(page.locator(f"#clip-{side} .title")).to_have_text(re.compile(f"^{side.upper()}: heard as"))
        expect(page.locator(f"#clip-{side} .scrubber output")).to_have_text("finished")
        expect(page.locator(f"#clip-{side} .play")).to_be_enabled()
        assert sum(probabilities(page, f"#clip-{side}").values()) == pytest.approx(1, abs=1e-3)
    assert {(request["label"], request["seed"], request["steps"]) for request in sent} == {("four", 5, 4)} and len(sent) == 2
    assert [request.get("gamma") for request in sorted(sent, key=lambda request: "sampler" in request)] == [None, 0]
    assert (picture(page, "#clip-a") != picture(page, "#clip-b")).mean() > 0.1
    expect(page.locator("#clip-b .note")).to_have_text("gamma 0 · 4 steps · dpmpp_2m")


# for everyone


def test_the_keyboard_is_enough(page: Any) -> None:
    hasten(page)
    page.locator(".brand").focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "two":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    expect(page.locator("#spoken .title")).to_have_text("two")
    expect(page.locator("#status")).to_have_text(re.compile("^two, seed 0, heard as "))
    expect(page.locator("#spoken .play")).to_have_text("Play")
    while page.evaluate("document.activeElement.className") != "play strong":
        page.keyboard.press("Tab")
    watch_texts(page, "#spoken .play span")
    page.keyboard.press("Space")
    wait_for_texts(page, "Stop", "Play")


def test_everything_has_a_name_for_a_screen_reader(page: Any) -> None:
    hasten(page)
    press(page, "one")
    code = "all => all.filter(e => !(e.ariaLabel || e.innerText || [...(e.labels ?? [])].some(l => l.innerText))).map(e => e.outerHTML)"
    assert page.locator("button:visible, input, select, a").evaluate_all(code) == []
    assert "one" in (page.locator("#spoken canvas").get_attribute("aria-label") or "")
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_phone_scrolls_down_only(browser: Any, server: str, path: str) -> None:
    page, complaints = open_page(browser, server, path, viewport={"width": 360, "height": 740})
    if path == "/":
        page.wait_for_selector("body.ready")
        hasten(page)
        press(page, "three")
    else:
        page.wait_for_selector("#operations h2")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    close(page, complaints)


def test_dark_is_dark_and_light_is_light(browser: Any, server: str) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        page, complaints = open_page(browser, server, color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]])
        close(page, complaints)
    assert brightness["light"] > 200 and brightness["dark"] < 50


def test_reduced_motion_shows_the_finished_picture_at_once(browser: Any, server: str) -> None:
    page, complaints = open_page(browser, server, reduced_motion="reduce")
    page.wait_for_selector("body.ready")
    watch_texts(page, "#spoken .scrubber output")
    hasten(page, steps=6)
    press(page, "one")
    expect(page.locator("#spoken .scrubber output")).to_have_text("finished")
    assert page.evaluate("seen") == ["finished"]
    close(page, complaints)


def test_colours_rise_evenly_in_lightness(page: Any) -> None:
    table = page.evaluate("import('/static/colours.js').then(module => Array.from(module.COLOURS))")
    steps = np.diff(lightness(np.array(table).reshape(256, 3) / 255)[::8])
    assert steps == pytest.approx(steps.mean(), rel=0.1)


def lightness(rgb: np.ndarray) -> np.ndarray:
    """OKLab's L (B. Ottosson 2020) of sRGB colours (N, 3) in [0, 1]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
    return np.cbrt(linear @ cones.T) @ [0.21045, 0.79362, -0.00407]


# the page about the API


def test_the_api_is_explained_offline(browser: Any, server: str) -> None:
    page, complaints = open_page(browser, server, "/docs")
    generate = page.locator("#post-v1-generate")
    expect(generate).to_contain_text("curl")
    for field in ("label", "seed", "gamma", "frames", "probabilities"):
        expect(generate.locator("td", has_text=re.compile(f"^{field}$"))).not_to_have_count(0)
    expect(page.locator("#post-v1-classify")).to_contain_text("-F file=@sound.wav")
    assert page.locator("#index a").count() >= 3
    close(page, complaints)


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_no_inline_script_or_style(name: str) -> None:
    text = (STATIC / name).read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|https?://", text)
    assert all('src="/static/' in tag and tag.endswith("></script>") for tag in re.findall(r"<script.*?</script>", text))
