"""The page speaks: a word, its picture, its settings, and what is taken away."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np
import pytest
import soundfile

from page.browsing import (
    WORDS,
    colours_in,
    expect,
    hasten,
    needs_a_browser,
    picture,
    press,
    probabilities,
    sound_of,
    wait_for_texts,
    watch_texts,
    word,
)

pytestmark = needs_a_browser


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
    page.locator("#settings .sampler").select_option("dpmpp_2m")
    page.locator("#settings .steps-slider").fill("7")
    assert page.locator("#settings .steps").input_value() == "7"
    page.locator("#settings .gamma").fill("0.5")
    assert page.locator("#settings .gamma-slider").input_value() == "0.5"
    reply = press(page, "four")
    assert {name: reply["settings"][name] for name in ("steps", "gamma", "sampler")} == {"steps": 7, "gamma": 0.5, "sampler": "dpmpp_2m"}
    expect(page.locator("#spoken .command")).to_have_text(reply["command"])


def described(page: Any, server: str) -> dict[str, Any]:
    return dict(page.request.get(f"{server}/v1/model").json())


def test_every_setting_the_server_describes_has_a_control_and_travels(page: Any, server: str) -> None:
    others: dict[str, Any] = {"preset": "paper", "steps": 9, "last_sigma": 0.2, "gamma": 1.5, "guidance_low": 0.05, "guidance_high": 5}
    page.locator("#settings summary").click()
    settings = described(page, server)["settings"]
    controls = {setting["name"]: page.locator(f"#settings .{setting['name']}") for setting in settings}
    for setting in settings:
        name, control = setting["name"], controls[setting["name"]]
        assert control.count() == 1 and control.input_value() == str(setting["default"]).removesuffix(".0"), name
        expect(page.locator("#settings .dial").filter(has=page.locator(f".{name}")).locator(".hint")).to_have_text(setting["about"])
    for setting in settings:  # the preset comes first
        name, control = setting["name"], controls[setting["name"]]
        if setting["choices"]:
            others.setdefault(name, next(choice for choice in setting["choices"] if choice != setting["default"]))
            control.select_option(others[name])
        else:
            control.fill(str(others.setdefault(name, setting["maximum"])))
    answer = '{"error": {"code": "noted", "message": "noted"}}'
    page.route("**/v1/generate", lambda route: route.fulfill(status=422, body=answer))
    with page.expect_request("**/v1/generate") as waited:
        word(page, "one").click()
    sent = waited.value.post_data_json
    assert {setting["name"]: sent[setting["name"]] for setting in settings} == others
    page.get_by_role("button", name="Reset to defaults").click()
    with page.expect_request("**/v1/generate") as waited:
        word(page, "one").click()
    assert set(waited.value.post_data_json) == {"label", "seed", "mel", "frames"}


def test_a_preset_sets_the_others_and_what_is_changed_beside_it_wins(page: Any, server: str) -> None:
    """Also what is set back to the bundle's own value; presets that the bundle has no part for cannot be chosen."""
    model = described(page, server)
    chosen = page.locator("#settings .preset")
    assert chosen.locator("option:not([disabled])").all_text_contents() == list(model["presets"]) == model["settings"][0]["choices"]
    answer = '{"error": {"code": "noted", "message": "noted"}}'
    page.route("**/v1/generate", lambda route: route.fulfill(status=422, body=answer))

    def sent() -> dict[str, Any]:
        with page.expect_request("**/v1/generate") as waited:
            word(page, "one").click()
        return {name: value for name, value in waited.value.post_data_json.items() if name not in ("label", "seed", "mel", "frames")}

    chosen.select_option("paper")
    assert page.locator("#settings .steps").input_value() == "100" and page.locator("#settings .sampler").input_value() == "euler_maruyama"
    assert sent() == {"preset": "paper"}
    page.locator("#settings .steps").fill(str(model["defaults"]["steps"]))
    assert sent() == {"preset": "paper", "steps": model["defaults"]["steps"]}
    chosen.select_option("own")
    assert sent() == {} and page.locator("#settings .sampler").input_value() == model["defaults"]["sampler"]


def test_the_slider_of_steps_starts_where_the_sampler_works(page: Any, server: str) -> None:
    slider, number = page.locator("#settings .steps-slider"), page.locator("#settings .steps")
    fewest = described(page, server)["fewest_steps"]
    assert len(fewest) > 2
    for sampler, least in fewest.items():
        page.locator("#settings .sampler").select_option(sampler)
        slider.evaluate("slider => { slider.value = 0; slider.dispatchEvent(new Event('input')); }")
        assert slider.input_value() == number.input_value() == str(least)
    page.locator("#settings .sampler").select_option(min(fewest, key=fewest.__getitem__))
    number.fill(str(min(fewest.values())))
    page.locator("#settings .sampler").select_option(most := max(fewest, key=fewest.__getitem__))
    assert number.input_value() == str(fewest[most])


def test_a_clip_that_ran_off_is_an_error(page: Any) -> None:
    page.locator("#settings .steps").fill("2")
    with page.expect_response("**/v1/generate") as waited:
        word(page, "one").click()
    assert waited.value.status == 422
    expect(page.locator("#error")).to_have_text(waited.value.json()["error"]["message"])
    expect(page.locator("#error")).to_contain_text("ran off to no speech")
    expect(page.locator("#spoken .title")).to_have_text("Nothing spoken yet")


def test_anything_has_no_label(page: Any) -> None:
    hasten(page)
    assert press(page, "anything")["clips"][0]["label"] is None


def test_of_many_words_the_one_that_is_heard_is_in_sight(page: Any) -> None:
    """The model has six; here the server says that it has forty, and hears the last but six best."""
    labels = [f"word{number}" for number in range(34)] + list(WORDS)
    page.route("**/v1/model", lambda route: route.fulfill(json=route.fetch().json() | {"labels": labels}))

    def hear(route: Any) -> None:
        reply = route.fetch().json()
        reply["clips"][0]["probabilities"] = dict.fromkeys(labels, 0.0) | {"word33": 1.0}
        route.fulfill(json=reply)

    page.route("**/v1/generate", hear)
    page.reload()
    page.wait_for_selector("body.ready")
    expect(page.locator("#words")).to_have_class(re.compile(r"\bmany\b"))
    hasten(page)
    press(page, "three")
    most, bars = page.locator("#spoken .bars .most"), page.locator("#spoken .bars")
    expect(most).to_have_text(re.compile("^word33"))
    inner, outer = most.bounding_box(), bars.bounding_box()
    assert outer["y"] <= inner["y"] and inner["y"] + inner["height"] <= outer["y"] + outer["height"]


def test_the_words_are_grouped_by_language(page: Any) -> None:
    """The model of the package has none; here the server says that it has."""
    languages = {"zero": "en", "one": "en", "two": "de", "three": "de"}
    page.route("**/v1/model", lambda route: route.fulfill(json=route.fetch().json() | {"languages": languages}))
    page.reload()
    page.wait_for_selector("body.ready")
    groups = page.locator("#words").get_by_role("group")
    assert [group.get_by_role("button").all_text_contents() for group in groups.all()] == [["zero", "one"], ["two", "three"]]
    for name in ("English", "German"):
        expect(page.locator("#words").get_by_role("group", name=name)).to_have_count(1)
    assert page.locator("#words > button").all_text_contents() == ["four", "five", "anything"]
    assert page.locator("#compare-label optgroup").evaluate_all("all => all.map(one => [one.label, one.children.length])") == [
        ["English", 2],
        ["German", 2],
    ]
    assert page.locator("#spoken .bars li > :first-child").all_text_contents() == [
        "zero en",
        "one en",
        "two de",
        "three de",
        "four",
        "five",
    ]
    hasten(page)
    press(page, "three")
    expect(page.locator("#words .chosen")).to_have_text("three")


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


def test_two_settings_are_compared(page: Any) -> None:
    for side in "ab":
        page.locator(f"#settings-{side} .steps").fill("8")
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
    assert {(request["label"], request["seed"], request["steps"]) for request in sent} == {("four", 5, 8)} and len(sent) == 2
    assert [request.get("gamma") for request in sorted(sent, key=lambda request: "sampler" in request)] == [None, 0]
    assert (picture(page, "#clip-a") != picture(page, "#clip-b")).mean() > 0.1
    expect(page.locator("#clip-b .note")).to_have_text("gamma 0 · steps 8 · sampler dpmpp_2m")
