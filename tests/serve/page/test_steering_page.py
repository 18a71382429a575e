"""The page steers: a server's guides have a choice and a slider each, and what is chosen is asked for, shown and taken away."""

from __future__ import annotations

from typing import Any

from page.browsing import close, expect, needs_a_browser, open_page, press

pytestmark = needs_a_browser


def test_a_server_without_guides_shows_none(page: Any) -> None:
    expect(page.locator("#settings .guides")).to_be_hidden()
    page.locator("#settings .steps").fill("8")
    assert press(page, "two")["guides"] == []


def test_a_guide_is_chosen_and_steers(browser: Any, guided_server: str) -> None:
    page, complaints = open_page(browser, guided_server)
    page.wait_for_selector("body.ready")
    page.locator("#settings .steps").fill("8")
    plain = press(page, "three")
    dials = page.locator('#settings .guides [data-guide="my words"]')
    expect(dials).to_have_count(3)
    expect(dials.nth(1)).to_be_hidden()  # how strongly something steers that is off
    assert plain["guides"] == []
    page.locator("#seed .seed-number").fill("7")  # a guide so strong, against the word, spoils the clips of some seeds
    dials.nth(0).locator("select").select_option("five")
    expect(dials.nth(1)).to_be_visible()
    expect(dials.nth(2)).to_be_hidden()  # asked at the noised mel, there is but one way
    dials.nth(1).locator(".guide-gamma").fill("2.5")
    expect(dials.nth(1).locator("[type=range]")).to_have_value("2.5")
    reply = press(page, "three")
    (guide,) = reply["guides"]
    assert (guide["name"], guide["target"], guide["gamma"]) == ("my words", {"five": 1.0}, 2.5)
    expect(page.locator("#spoken .command")).to_contain_text("--guide 'my words-five:2.5'")
    expect(page.locator("#spoken .python")).to_contain_text("voice.guide('my words', 'five', gamma=2.5)")
    dials.nth(1).locator(".guide-gamma").fill("")
    assert press(page, "three")["guides"][0]["gamma"] == 10.0  # the guide's own
    page.locator("#controls [type=reset]").click()
    expect(dials.nth(0).locator("select")).to_have_value("off")
    assert press(page, "three")["guides"] == []
    close(page, complaints)


def test_the_way_of_a_gradient_is_chosen_where_there_are_two(browser: Any, guided_server: str) -> None:
    page, complaints = open_page(browser, guided_server)
    page.wait_for_selector("body.ready")
    page.locator("#settings .steps").fill("8")
    dials = page.locator("#settings .guides [data-guide=pitch]")
    target, way = dials.nth(0).locator("select"), dials.nth(2).locator("select")
    expect(way).to_be_hidden()
    target.select_option("196Hz")
    expect(way).to_have_value("through")
    assert press(page, "three")["guides"][0]["way"] == "through"
    way.select_option("straight")
    assert press(page, "three")["guides"][0]["way"] == "straight"
    expect(page.locator("#spoken .command")).to_contain_text("--guide pitch-196Hz:20:straight")
    page.locator("#controls [type=reset]").click()
    expect(way).to_be_hidden()
    expect(way).to_have_value("through")
    close(page, complaints)
