"""text.py: byte order marks at every door where users give a text file, one spelling of names, escapes, and what can be a label."""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from duovox.bundle import read_bundle
from duovox.commands.training import _read_json
from duovox.config import ExternalConfig, MelInput, Recipe, WaveInput, read_input, read_recipe, write_recipe
from duovox.contracts import ConfigError
from duovox.serve.settings import read_token
from duovox.text import label_fault, printable, read_text, same_spelling

MARKED: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16 of Windows": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, big end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}


@pytest.fixture(params=MARKED)
def marked(request: pytest.FixtureRequest) -> Callable[[str], bytes]:
    return MARKED[request.param]


def test_text_is_the_same_with_any_mark(marked: Callable[[str], bytes], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(marked("zéro 数\r\none"))
    assert read_text(tmp_path / "a.txt") == "zéro 数\none"


def test_other_encodings_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("zéro".encode("latin-1"))
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "a.txt")


def test_recipes_inputs_tokens_and_scores_may_have_a_mark(marked: Callable[[str], bytes], tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(marked(write_recipe(tiny_recipe)))
    assert read_recipe(path) == tiny_recipe
    path.write_bytes(marked("[wave_input]\r\nsample_rate = 8000\r\n"))
    assert read_input(str(path)) == WaveInput(sample_rate=8000)
    path.write_bytes(marked("0123456789abcdef\r\n"))
    assert read_token(path) == "0123456789abcdef"
    path.write_bytes(marked('{"accuracy": 0.5}'))
    assert _read_json(path) == {"accuracy": 0.5}


def test_a_bundle_may_have_been_edited_by_hand(marked: Callable[[str], bytes], bundle_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle_folder, tmp_path / "copy"))
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_bytes(marked(text))
    assert read_bundle(copy).config.labels == tuple(json.loads(text)["labels"])


def test_a_token_must_still_be_ascii(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("é" * 20, encoding="utf-8")
    with pytest.raises(ConfigError, match="must hold a token"):
        read_token(tmp_path / "token")


def test_one_spelling_of_a_name() -> None:
    assert same_spelling("fu\u0308nf") == same_spelling("f\u00fcnf") == "f\u00fcnf"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï 数字.wav", "plain ünï 数字.wav"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("gpj.\u202evaw", r"gpj.\u202evaw"),
        ("line\u2028end", r"line\u2028end"),
        ("odd\udcff.wav", r"odd\udcff.wav"),
        ("\u0928\u200d", "\u0928\u200d"),
    ],
)
def test_what_steers_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("label", ["", " ", "\t", ".", "..", "a\0", "a\nb", "a\r", "a\x1b", "a\u2029", "a\ud800"])
def test_what_can_be_no_label(label: str) -> None:
    assert label_fault(label)
    with pytest.raises(ConfigError, match=r"^external\.labels: .* cannot be a label, it (is|holds) "):
        ExternalConfig(labels=("yes", label), mel_input=MelInput())


@pytest.mark.parametrize("label", ["yes", "left up", "../../etc", "a/b", "...", "五", "<unk>", "don't"])
def test_what_can_be_a_label(label: str) -> None:
    assert label_fault(label) == ""
    assert ExternalConfig(labels=("other", label), mel_input=MelInput()).labels[1] == label
