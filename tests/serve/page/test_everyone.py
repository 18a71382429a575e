"""The page for everyone: keyboard, screen readers, phones, dark rooms; and the page about the API."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from page.browsing import STATIC, close, expect, hasten, needs_a_browser, open_page, press, wait_for_texts, watch_texts

pytestmark = needs_a_browser


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
    named = "e.ariaLabel || e.innerText || [...(e.labels ?? [])].some(l => l.textContent.trim())"
    code = f"all => all.filter(e => !({named})).map(e => e.outerHTML)"
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
