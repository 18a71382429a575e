"""The page without a server, in a real browser: its files, its arithmetic, its words, its ears, and that it needs no network."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from duovox.config import NoiseConfig, SampleConfig
from duovox.contracts import DuovoxError, GenerationError, OutputError
from duovox.diffusion import sampling
from duovox.diffusion.ideal import IdealDenoiser
from duovox.exporting import site as site_module
from duovox.exporting.folder import Exported, student_alone
from duovox.exporting.runtime import PACKED, runtime_files
from duovox.exporting.site import FOLDER, WEB, fitting_site, site_files, write_site
from duovox.lite.mel import log_mel
from duovox.sound.audio import write_audio
from duovox.voice import Duovox

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 120_000
in_a_browser = [
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is absent: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is absent: apt-get install chromium"),
]


def in_chromium(test: Any) -> Any:
    for mark in in_a_browser:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def runtime() -> dict[str, bytes]:
    """onnxruntime-web, by npm; the test is skipped where that does not give it."""
    try:
        return runtime_files(None)
    except DuovoxError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def site(exported: Exported, small_voice: Duovox, runtime: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "page"
    write_site(site_files(exported, small_voice, "small", runtime), folder)
    return folder


class Host:
    """A static host that knows nothing but files; `asked` is what it was asked for."""

    def __init__(self, folder: Path) -> None:
        host = self
        self.asked: list[str] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                host.asked.append(self.path)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder.parent))
        self.address = f"http://127.0.0.1:{self.server.server_port}/{folder.name}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def host(site: Path) -> Iterator[Host]:
    host = Host(site)
    yield host
    host.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *microphone])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page(browser: Any, host: Host) -> Iterator[Any]:
    """The page, ready, for all tests that leave it as it is; in the end it must not have complained."""
    with opened(browser, host) as page:
        yield page


@contextmanager
def opened(browser: Any, host: Host) -> Iterator[Any]:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(host.address)
    page.wait_for_selector("body.ready")
    yield page
    page.context.close()
    assert complaints == []


def run(page: Any, module: str, code: str, *given: Any) -> Any:
    """What the body of a function says, of the exports of one of the page's modules as `m` and arguments as `given`."""
    return page.evaluate(f"async ([name, given]) => {{ const m = await import(`./static/${{name}}`); {code} }}", [module, list(given)])


def press(page: Any, word: str) -> None:
    page.locator("#words").get_by_role("button", name=word, exact=True).click()
    shown = "word => document.querySelector('#spoken .title').textContent === word && !document.querySelector('#spoken [aria-busy]')"
    page.wait_for_function(shown, arg=word)


def test_the_files_of_the_site(site: Path, exported: Exported) -> None:
    """All that the page names is there, under names that hold wherever the folder is put; and nothing that needs a server."""
    page = (site / "index.html").read_text()
    assert not re.search(r'(href|src)="/', page) and "openapi" not in page and "Content-Security-Policy" in page
    for name in re.findall(r'(?:href|src)="(static/[^"]+)"', page):
        assert (site / name).is_file()
    for script in (site / "static").glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', script.read_text()):
            assert (site / "static" / name).is_file(), f"{script.name} imports {name}"
    kept = set(json.loads(re.search(r"FILES = (\[.*\]);", (site / "service-worker.js").read_text())[1]))  # type: ignore[index]
    assert kept - {"./"} == {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()} - {"service-worker.js"}
    assert (site / "model" / "weights.bin").read_bytes() == exported.files["weights.bin"]


def test_only_the_api_stands_in_the_place_of_a_module_of_the_servers() -> None:
    names = {path.name for path in WEB.glob("*.js")} & {path.name for path in FOLDER.glob("*.js")}
    assert names == {"api.js"}


def test_another_model_is_another_cache(exported: Exported, small_voice: Duovox) -> None:
    one = site_files(exported, small_voice, "small", {PACKED: b"1"})
    other = site_files(exported, small_voice, "small", {PACKED: b"2"})
    assert one["service-worker.js"] != other["service-worker.js"]


def test_nothing_but_a_site_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="was not made by `duovox export`"):
        write_site({"service-worker.js": b""}, tmp_path, force=True)
    write_site({"service-worker.js": b"1", "static/a.js": b""}, tmp_path / "site")
    with pytest.raises(OutputError, match="--force"):
        write_site({"service-worker.js": b"2"}, tmp_path / "site")
    write_site({"service-worker.js": b"2"}, tmp_path / "site", force=True)
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["service-worker.js"]


@in_chromium
def test_the_noise_of_torch(page: Any) -> None:
    for seed, count in ((0, 16), (7, 5120), (2**40 + 3, 33), (2**53 - 1, 100)):
        drawn = run(page, "random.js", "return Array.from(new m.TorchNormal(given[0]).draw(given[1]))", seed, count)
        expected = torch.randn(count, generator=torch.Generator().manual_seed(seed)).numpy()
        np.testing.assert_allclose(drawn, expected, rtol=0, atol=2e-6)


@in_chromium
@pytest.mark.parametrize("size", [1024, 400, 6])
def test_the_log_mel(page: Any, small_voice: Duovox, size: int) -> None:
    """Also for transforms whose size is no power of two."""
    from dataclasses import asdict, replace

    mel = replace(small_voice.config.recipe.mel, n_fft=size, win_length=size // 2)
    wave = (0.1 * np.random.default_rng(0).standard_normal(3840)).astype(np.float32)
    found = run(page, "mel.js", "return Array.from(new m.LogMel(given[0]).of(Float32Array.from(given[1])))", asdict(mel), wave.tolist())
    np.testing.assert_allclose(np.reshape(found, (16, 16)), log_mel(wave[None], mel)[0, 0], rtol=0, atol=1e-4)


@in_chromium
@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_maruyama"])
@pytest.mark.parametrize(("steps", "last"), [(1, 0.0), (5, 0.0), (5, 0.2)])
def test_the_samplers(page: Any, sampler: str, steps: int, last: float) -> None:
    """Towards one point, for which the exact denoiser is that point."""
    from dataclasses import asdict

    point, noise = torch.linspace(-1, 1, 32), NoiseConfig()
    settings = SampleConfig(sampler=sampler, steps=steps, last_sigma=last)  # type: ignore[arg-type]
    expected = sampling.sample(IdealDenoiser(torch.stack([point, -point])), [3], (32,), settings, noise)[0].numpy()
    code = """
      const { TorchNormal } = await import("./static/random.js");
      const [point, settings, noise] = given;
      const normal = new TorchNormal(3);
      const denoise = async (noised, sigma) => {
        const side = noised.reduce((sum, x, i) => sum + x * point[i], 0) / sigma ** 2;
        return Float32Array.from(point, (value) => value * Math.tanh(side));
      };
      return Array.from(await m.sample(denoise, () => normal.draw(32), settings, noise));
    """
    given = {"sampler": sampler, "steps": steps, "last_sigma": last}
    found = run(page, "sampling.js", code, point.tolist(), given, asdict(noise))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@in_chromium
@pytest.mark.parametrize("levels", [[80.0, 0.0], [80.0, 2.0, 0.2, 0.0]])
def test_the_jumps(page: Any, levels: list[float]) -> None:
    """By a flow map that says something else for each noise level and for each length of a jump."""

    def flow_map(noised: torch.Tensor, sigma: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        return torch.tanh(noised / (1 + sigma[:, None])) * (1 + (to / sigma)[:, None])

    expected = sampling.sample_jumps(flow_map, [3], (32,), torch.tensor(levels, dtype=torch.float64))[0].numpy()
    code = """
      const { TorchNormal } = await import("./static/random.js");
      const normal = new TorchNormal(3);
      const jump = async (noised, sigma, to) => noised.map((x) => Math.tanh(x / (1 + sigma)) * (1 + to / sigma));
      return Array.from(await m.sampleJumps(jump, () => normal.draw(32), given[0]));
    """
    np.testing.assert_allclose(run(page, "sampling.js", code, levels), expected, rtol=0, atol=1e-3)


@in_chromium
def test_the_strength_of_guidance(page: Any) -> None:
    from duovox.lite.sampling import guidance_scale

    for schedule in ("constant", "early", "late"):
        given = {"gamma": 2.0, "guidance_low": 0.1, "guidance_high": 5.0, "schedule": schedule}
        settings = SampleConfig(**given)  # type: ignore[arg-type]
        for sigma in (0.01, 0.1, 0.7, 5.0, 6.0):
            found = run(page, "sampling.js", "return m.guidanceScale(...given)", given, sigma, 0.5)
            assert found == pytest.approx(guidance_scale(settings, sigma, 0.5))


@in_chromium
@pytest.mark.parametrize(
    "changes",
    [{}, {"sampler": "dpmpp_2m", "steps": 4}, {"gamma": 0}, {"preset": "turbo"}, {"sampler": "student", "steps": 4, "gamma": 0.4}],
)
@pytest.mark.parametrize("label", ["seven", None])
def test_a_clip_is_pytorchs(page: Any, small_voice: Duovox, label: str | None, changes: dict[str, Any]) -> None:
    code = "return (await m.generate(given[0], new AbortController().signal)).clip"
    clip = run(page, "api.js", code, {"label": label, "seed": 5, **changes})
    expected = small_voice.generate(label, seed=5, **changes)[0]
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(clip["audio"])), dtype="float32")
    assert rate == 16000 and clip["probabilities"] == pytest.approx(expected.probabilities, abs=1e-3)
    np.testing.assert_allclose(wave, expected.wave, rtol=0, atol=1e-3)


@in_chromium
def test_words_without_a_network(browser: Any, site: Path) -> None:
    """Once it is loaded it asks for nothing; and it loads again where there is no network at all."""
    host = Host(site)
    with opened(browser, host) as page:
        asked = list(host.asked)
        press(page, "seven")
        command = page.locator("#spoken .command").text_content()
        assert command == "duovox generate seven --seed 0 --preset turbo --bundle small", "it begins with its student"
        assert host.asked == asked
        host.close()
        page.context.set_offline(True)
        page.reload()
        page.wait_for_selector("body.ready")
        press(page, "one")
        assert page.evaluate("crossOriginIsolated"), "the service worker sends what pages need for threads"
        assert page.locator("#error").text_content() == ""


@in_chromium
def test_it_listens(page: Any, small_voice: Duovox, tmp_path: Path) -> None:
    """To a file, as PyTorch does, with what is said of it; and to the microphone."""
    rate = 16000
    wave = np.random.default_rng(0).standard_normal(rate) * np.linspace(0.01, 0.2, rate)
    path = write_audio(tmp_path / "noise.wav", wave, rate)
    page.locator("#file").set_input_files(path)
    page.wait_for_function("() => document.querySelector('#heard .title').textContent === 'noise.wav'")
    heard = small_voice.listen(path)
    best = max(heard.probabilities, key=heard.probabilities.__getitem__)
    note = page.locator("#heard .note").text_content()
    assert f"heard as {best}" in note and heard.notes[0] in note
    page.wait_for_function("() => !document.querySelector('[aria-busy]')")
    page.locator("#record").click()
    page.wait_for_function("() => document.querySelector('#heard .title').textContent === 'your recording'")
    page.wait_for_function("() => !document.querySelector('[aria-busy]')")
    assert page.locator("#error").text_content() == ""


@in_chromium
def test_sounds_that_cannot_be_heard(page: Any, tmp_path: Path) -> None:
    silent = write_audio(tmp_path / "silent.wav", np.zeros(4000), 16000)
    (tmp_path / "text.wav").write_text("no sound")
    for path, words in ((silent, "silent: nothing in it can be heard"), (tmp_path / "text.wav", "text.wav cannot be heard")):
        page.locator("#file").set_input_files(path)
        page.wait_for_function("words => document.querySelector('#error').textContent.includes(words)", arg=words)


@in_chromium
@pytest.mark.parametrize(
    ("changes", "words"), [({"steps": "no"}, "steps"), ({"steps": 0}, "steps"), ({"gamma": -1}, "gamma"), ({"seed": -1}, "seed")]
)
def test_settings_that_cannot_be(page: Any, changes: dict[str, Any], words: str) -> None:
    code = "return m.generate(given[0], new AbortController().signal).then(() => '', (error) => error.message)"
    assert words in run(page, "api.js", code, {"label": "one", "seed": 0, **changes})


WITHIN_A_STUDENT: list[dict[str, Any]] = [
    {"preset": "turbo", "steps": 3},
    {"preset": "turbo", "gamma": 3},
    {"sampler": "student"},
    {"preset": "turbo", "guidance_low": 0.1},
    {"preset": "turbo", "schedule": "early"},
]


@in_chromium
@pytest.mark.parametrize("changes", WITHIN_A_STUDENT)
def test_what_the_student_was_not_taught_in_the_words_of_torch(page: Any, small_voice: Duovox, changes: dict[str, Any]) -> None:
    with pytest.raises(GenerationError) as theirs:
        small_voice.generate("one", **changes)
    code = "return m.generate(given[0], new AbortController().signal).then(() => '', (error) => error.message)"
    assert run(page, "api.js", code, {"label": "one", "seed": 0, **changes}) == str(theirs.value)


@in_chromium
def test_a_student_of_one_gamma_says_which(page: Any) -> None:
    code = "try { m.checkTaught(...given); return ''; } catch (error) { return error.message; }"
    repertoire = {"levels": [[80, 0]], "gammas": [3]}
    settings = {"steps": 1, "gamma": 2, "guidance_low": 0, "schedule": "constant"}
    said = run(page, "repertoire.js", code, repertoire, settings)
    assert said == "the student was taught gamma 3, not 2; set gamma to that, or take another sampler"


@in_chromium
def test_two_settings_side_by_side(page: Any) -> None:
    """At first the student's and the bundle's own."""
    page.locator("#compare-form").get_by_role("button", name="Speak both").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#compare .title')].every((title) => /^[AB]: heard as/.test(title.textContent))"
    )
    notes = page.locator("#compare .note").all_text_contents()
    assert "steps 4 · sampler student · preset turbo" in notes[0] and "steps 3 · sampler heun" in notes[1]
    assert page.locator("#error").text_content() == ""


@in_chromium
def test_the_bars_say_languages(page: Any) -> None:
    assert page.locator("#spoken .bars li > :first-child").all_text_contents() == ["null de", "one en", "seven"]
    assert page.locator("#spoken .bars small").first.get_attribute("title") == "German"


def test_a_page_that_is_too_large_leaves_the_step_out(exported: Exported, small_voice: Duovox, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, note = fitting_site(exported, small_voice, "small", {})
    assert note == "" and "model/step.onnx" in whole
    facts = json.loads(whole["model/model.json"])
    assert (facts["start"]["preset"], facts["start"]["steps"], facts["other"]["sampler"]) == ("turbo", 4, "heun")
    monkeypatch.setattr(site_module, "LIMIT", 2**16)
    lean, note = fitting_site(exported, small_voice, "small", {})
    assert set(whole) - set(lean) == {"model/step.onnx"} and re.match(r"left out: the step .* would take 0\.\d MiB; it speaks by", note)
    facts = json.loads(lean["model/model.json"])
    assert [setting["name"] for setting in facts["settings"]] == ["preset", "sampler", "steps", "gamma"] and set(facts["presets"]) == {
        "turbo"
    }
    assert [(s["minimum"], s["maximum"], s["default"]) for s in facts["settings"][2:]] == [(1, 4, 4), (0.3, 0.5, 0.3)]
    without = Duovox(replace(small_voice.bundle, student=None))
    files, note = fitting_site(exported, without, "small", {})
    assert "model/step.onnx" in files and re.match(r"the page takes 0\.\d MiB, more than 0; a lower --precision", note)


@in_chromium
def test_a_page_of_the_student_alone(
    browser: Any, exported: Exported, small_voice: Duovox, runtime: dict[str, bytes], tmp_path: Path
) -> None:
    write_site(site_files(student_alone(exported), small_voice, "small", runtime), tmp_path / "page")
    host = Host(tmp_path / "page")
    with opened(browser, host) as page:
        press(page, "seven")
        assert page.locator("#spoken .command").text_content() == "duovox generate seven --seed 0 --preset turbo --bundle small"
        assert page.locator("#settings .sampler option").all_text_contents() == ["student"]
        clip = run(page, "api.js", "return (await m.generate(given[0], new AbortController().signal)).clip", {"label": "one", "seed": 5})
        wave, _ = soundfile.read(io.BytesIO(base64.b64decode(clip["audio"])), dtype="float32")
        np.testing.assert_allclose(wave, small_voice.generate("one", seed=5, preset="turbo")[0].wave, rtol=0, atol=1e-3)
        code = "return m.generate(given[0], new AbortController().signal).then(() => '', (error) => error.message)"
        said = run(page, "api.js", code, {"label": "one", "seed": 0, "sampler": "heun"})
        assert said == "sampler heun: this page has its student alone; use preset turbo"
        page.locator("#compare-form").get_by_role("button", name="Speak both").click()
        page.wait_for_function("() => document.querySelector('#clip-b .note').textContent.includes('steps 2')")
        assert page.locator("#error").text_content() == ""
    host.close()


@in_chromium
def test_a_clip_that_ran_off_is_refused(page: Any) -> None:
    code = "return m.generate(given[0], new AbortController().signal).then(() => '', (error) => error.message)"
    assert "ran off to no speech" in run(page, "api.js", code, {"label": "one", "seed": 0, "gamma": 1e6})


@in_chromium
def test_what_is_cancelled_makes_room(page: Any) -> None:
    code = """
      const [first, second] = [new AbortController(), new AbortController()];
      const long = m.generate({ label: "one", seed: 0, steps: 500 }, first.signal).then(() => "done", (error) => error.name);
      setTimeout(() => first.abort(), 100);
      const short = await m.generate({ label: "one", seed: 0 }, second.signal);
      return [await long, short.clip.label];
    """
    assert run(page, "api.js", code) == ["AbortError", "one"]


OLD_BROWSERS = {
    "no SIMD": ("WebAssembly.validate = () => false", "has no WebAssembly SIMD"),
    "no WebAssembly": ("delete globalThis.WebAssembly", "has no WebAssembly SIMD"),
    "no DecompressionStream": ("delete globalThis.DecompressionStream", "cannot unpack the model"),
}


@in_chromium
@pytest.mark.parametrize("kind", OLD_BROWSERS)
def test_a_browser_that_is_too_old_is_told(browser: Any, host: Host, kind: str) -> None:
    script, words = OLD_BROWSERS[kind]
    page = browser.new_context().new_page()
    page.add_init_script(script)
    page.goto(host.address)
    page.wait_for_function("words => document.querySelector('#error').textContent.includes(words)", arg=words, timeout=PATIENCE)
    page.context.close()


@in_chromium
def test_a_microphone_that_is_not_allowed(page: Any) -> None:
    refuse = "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError')); }"
    page.evaluate(refuse)
    page.locator("#record").click()
    page.wait_for_function("() => document.querySelector('#error').textContent.includes('does not let this page use the microphone')")


@in_chromium
def test_a_model_that_cannot_be_loaded(browser: Any, site: Path, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path / "page")
    (tmp_path / "page" / "model" / "step.onnx").unlink()
    host = Host(tmp_path / "page")
    page = browser.new_context(service_workers="block").new_page()
    page.goto(host.address)
    page.wait_for_function("() => document.querySelector('#error').textContent.includes('step.onnx cannot be loaded')", timeout=PATIENCE)
    page.context.close()
    host.close()
