"""The page when something is wrong: refusals, waiting, the token, cancelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from page.browsing import expect, hasten, needs_a_browser, open_page, press, watch_texts, word

pytestmark = needs_a_browser


def test_a_file_that_nobody_can_read_is_named_with_the_reason(page: Any, spoken_three: Path, tmp_path: Path) -> None:
    hasten(page)
    path = tmp_path / "notes.wav"
    path.write_text("these are words, but no sound")
    with page.expect_response("**/v1/classify") as waited:
        page.set_input_files("#file", path)
    message = waited.value.json()["error"]["message"]
    expected = f"notes.wav cannot be heard: {message}, and this browser cannot decode it either."
    expect(page.get_by_role("alert").locator("#error")).to_have_text(expected)
    expect(page.get_by_role("alert")).to_be_visible()
    page.set_input_files("#file", spoken_three)
    expect(page.locator("#error")).to_have_text("")


def test_a_large_file_that_is_no_sound_is_not_sent(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    path.write_bytes(bytes(6 * 2**20))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.set_input_files("#file", path)
    reason = "it has 6.0 MB, the server takes 5.0 MB at most, and this browser cannot decode it either."
    expect(page.locator("#error")).to_have_text(f"large.wav cannot be heard: {reason}")
    assert sent == []


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
