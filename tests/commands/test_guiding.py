"""commands/guiding.py: `duovox guide` makes a folder that `duovox generate --guide` takes; every mistake is one line."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tone

from duovox.asking import split_guide
from duovox.bundle import Bundle
from duovox.cli import main
from duovox.guide_folder import read_guide
from duovox.repurposing import make_own_guide
from duovox.shipped import DEFAULT_BUNDLE
from duovox.sound.audio import read_audio, write_audio

pytestmark = pytest.mark.usefixtures("anything_is_speech")

CODE = """
import torch
from torch import nn

class Bands(nn.Module):
    def forward(self, x):
        bands = x[:, 0].mean(dim=2)
        return bands - bands.mean(dim=1, keepdim=True)

def bands():
    return Bands()
"""


@pytest.fixture
def here(tmp_path: Path, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a guide `words` of our own, some sounds and a module `my_guides`."""
    make_own_guide(bundle_folder).write(tmp_path / "words")
    (tmp_path / "my_guides.py").write_text(CODE)
    (tmp_path / "takes.toml").write_text("[mel_input]\nn_mels = 16\nframes = 16\n")
    for number, label in enumerate(("low", "mid", "high", "high")):
        write_audio(tmp_path / ("ann" if label == "low" else "others") / f"{number}.wav", tone(label, number), 16000, parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_guides", raising=False)
    yield tmp_path
    sys.modules.pop("my_guides", None)


def generate(bundle_folder: Path, *words: str, out: str = "a.wav") -> tuple[np.ndarray, dict[str, Any]]:
    """The wave of a clip, and its record."""
    assert main(["generate", "low", "--bundle", str(bundle_folder), "--out", out, "--force", *words]) == 0
    return read_audio(Path(out), 16000), json.loads(Path(out).with_suffix(".json").read_text())


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("duovox: "), lines
    return lines[0]


def test_a_clip_is_steered_and_its_record_says_so(here: Path, bundle_folder: Path) -> None:
    plain, record = generate(bundle_folder)
    assert "guides" not in record
    steered, record = generate(bundle_folder, "--guide", "words-high:5")
    (guide,) = record["guides"]
    assert guide["target"] == {"high": 1.0} and guide["strength"]["gamma"] == 5.0 and guide["name"] == "words"
    assert guide["digest"] == read_guide(here / "words").digest
    assert np.abs(steered - plain).max() > 1e-3
    again, _ = generate(bundle_folder, "--guide", "words-high:5", "--batch", "3")
    np.testing.assert_allclose(again, steered, atol=1e-3)


def test_several_guides_soft_and_negative_targets_and_gamma_zero(here: Path, bundle_folder: Path) -> None:
    _, record = generate(bundle_folder, "--guide", "words-high=0.5,mid=0.5:2", "own-mid=-1:0.5")
    assert [(one["name"], one["target"]) for one in record["guides"]] == [("words", {"high": 0.5, "mid": 0.5}), ("own", {"mid": -1.0})]
    plain, _ = generate(bundle_folder)
    idle, record = generate(bundle_folder, "--guide", "words-high:0")
    assert np.array_equal(idle, plain) and "guides" not in record


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("words-high:5", ("words", "high", {"gamma": 5.0})),
        ("words-high", ("words", "high", {})),
        ("words", ("words", None, {})),
        ("words:2", ("words", None, {"gamma": 2.0})),
        ("./words-two-three:1e-1", ("./words", "two-three", {"gamma": 0.1})),
        ("words-4-in-four=-1:3", ("words-4", "in-four=-1", {"gamma": 3.0})),
        ("own-a:b:2", ("own", "a:b", {"gamma": 2.0})),
        ("words-high:5:straight", ("words", "high", {"gamma": 5.0, "way": "straight"})),
        ("words-high:5:best-of-8", ("words", "high", {"gamma": 5.0, "candidates": 8})),
        ("words-high:5:straight:best-of-8", ("words", "high", {"gamma": 5.0, "way": "straight", "candidates": 8})),
        ("words-high:through", ("words", "high", {"way": "through"})),
        ("words-high:5:estimate:straight", ("words", "high", {"gamma": 5.0, "at": "estimate", "way": "straight"})),
        ("words-high:noised", ("words", "high", {"at": "noised"})),
    ],
)
def test_folder_target_and_strength_are_told_apart(here: Path, text: str, parts: tuple[Any, ...]) -> None:
    (here / "words-4").mkdir()
    (here / "words-4" / "guide.json").write_text("{}")
    asked = split_guide(text)
    assert (asked.source, asked.target, asked.strength) == parts and asked.like is None


def test_a_reference_is_a_label_and_the_printed_command_works(here: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["guide", "my_guides:bands", "--takes", "takes.toml", "--references", "ann", "others/1.wav", "--background", "others"]
    assert main([*words, "--out", "like", "--gamma", "20", "--cap", "1", "--interval", "0.1", "20"]) == 0
    text = capsys.readouterr().out
    assert "like knows ann, 1; next:" in text
    costs = re.search(rf"^an evaluation of the voice {DEFAULT_BUNDLE} costs ([\d.]+) GMACs with it, ([\d.]+) without$", text, re.MULTILINE)
    assert costs is not None and float(costs[1]) > float(costs[2]) == pytest.approx(1.58, abs=0.05)
    made = read_guide(here / "like", trust_code=True)
    assert made.config.kind == "embedding" and made.anchors is not None and len(made.anchors) == 5
    assert (made.config.strength.gamma, made.config.strength.cap, made.config.strength.low) == (20.0, 1.0, 0.1)
    (line,) = re.findall(r"^  (duovox .*)$", text, re.MULTILINE)
    assert main([*shlex.split(line)[1:], "--bundle", str(bundle_folder), "--out", "near.wav"]) == 0
    assert json.loads((here / "near.json").read_text())["guides"][0]["target"] == {"ann": 1.0}


def test_a_guides_way_is_its_own_or_that_of_a_clip(here: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["guide", "my_guides:bands", "--takes", "takes.toml", "--labels", ",".join(f"b{number}" for number in range(16))]
    for way in ("through", "straight"):
        assert main([*words, "--out", way, "--way", way]) == 0
    costs = [float(found) for found in re.findall(r"costs ([\d.]+) GMACs with it", capsys.readouterr().out)]
    assert costs[1] < costs[0], "straight is cheaper"
    clips = [
        generate(bundle_folder, "--trust-code", "--guide", text) for text in ("straight-b3:20", "through-b3:20:straight", "through-b3:20")
    ]
    assert [record["guides"][0]["strength"]["way"] for _, record in clips] == ["straight", "straight", "through"]
    np.testing.assert_array_equal(clips[0][0], clips[1][0])
    assert np.abs(clips[1][0] - clips[2][0]).max() > 1e-3


def test_a_classifier_of_ours_is_made_a_guide(here: Path, bundle_folder: Path, tiny_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guide", str(tiny_runs / "classifier"), "--out", "tones", "--gamma", "2"]) == 0
    made = read_guide(here / "tones")
    assert made.config.strength.at == "noised" and made.config.strength.gamma == 2.0
    assert "note: the guide tones does not fit this voice" in capsys.readouterr().out  # that of the package, of another mel
    asked = [generate(bundle_folder, "--guide", f"tones-mid:20{where}") for where in ("", ":estimate", ":estimate:straight")]
    told = [record["guides"][0]["strength"] for _, record in asked]
    assert [(one["at"], one["way"]) for one in told] == [("noised", "through"), ("estimate", "through"), ("estimate", "straight")]
    assert len({wave.tobytes() for wave, _ in asked}) == 3


def test_mistakes_are_one_line(here: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def speak(*guides: str) -> str:
        return refusal(capsys, "generate", "low", "--bundle", str(bundle_folder), "--out", "b.wav", "--guide", *guides)

    assert "names no guide; write GUIDE-TARGET:GAMMA" in speak("absent-high:5")
    assert "unknown label 'hihg'; the nearest: high" in speak("words-hihg:5")
    assert "say what is wanted of the guide words" in speak("words:5")
    assert "'loud' is no strength" in speak("words-high:loud")
    assert "guide.gamma must not be negative" in speak("words-high:-3")
    assert "guide.gamma must be finite" in speak("words-high:nan")
    assert "is no target of a guide" in speak("words-high=much:1")
    assert "guide.way straight is for guides at the estimate" in speak("words-high:3:straight")
    assert "never met noise and can be asked at the estimate alone" in speak("pitch-196Hz:3:noised")
    assert "'sideways' is no strength" in speak("words-high:3:sideways")
    assert "cannot be near to nosuch.wav: there is no such file" in speak("words-nosuch.wav")
    assert "the guide words-high is given twice" in speak("words-high:1", "words-high:2")
    assert "17 guides are too many" in speak(*(f"words-high={number},mid=1:1" for number in range(1, 18)))
    assert not (here / "b.wav").exists()
    common = ("guide", "my_guides:bands", "--takes", "takes.toml")
    assert "names no guide" in speak("ann-low:1")
    assert "exists; add --force" in refusal(capsys, *common, "--labels", "a", "--out", "words")
    assert "exists and is no guide" in refusal(capsys, *common, "--labels", "a", "--out", "ann", "--force")
    assert "needs background clips" in refusal(capsys, *common, "--references", "ann", "--out", "new")
    assert "have the same name" in refusal(capsys, *common, "--references", "ann", "./ann", "--background", "others", "--out", "new")
    assert "guide.cap must be positive, not 0" in refusal(capsys, *common, "--labels", "a,b", "--cap", "0", "--out", "new")
    assert "say the labels" in refusal(capsys, *common, "--out", "new")
    assert "leave --labels out" in refusal(capsys, "guide", str(bundle_folder), "--labels", "a,b", "--out", "new")
    write_audio(here / "silent.wav", np.zeros(16000, np.float32), 16000)
    assert "silent.wav" in refusal(capsys, *common, "--references", "silent.wav", "--background", "others", "--out", "new")
    assert not (here / "new").exists()


def test_an_exported_voice_takes_no_guides(exported_folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "generate", "one", "--model", str(exported_folder), "--guide", "words-high:5")
    assert "an exported voice takes no guides" in said


def test_generation_into_a_folder_knows_its_guides(tiny_bundle: Bundle, bundle_folder: Path, tmp_path: Path) -> None:
    """Clips steered otherwise are never put beside each other; a guide at gamma 0 is none."""
    from duovox.contracts import OutputError
    from duovox.generation import deciding_facts, fill_folder, make_plan
    from duovox.voice import Duovox

    voice = Duovox(tiny_bundle)
    guide, idle = voice.guide("own", "high", gamma=2), voice.guide("own", "high", gamma=0)
    assert deciding_facts(voice, voice.settings(), guides=[idle]) == deciding_facts(voice, voice.settings())
    assert deciding_facts(voice, voice.settings(), guides=[guide])["guides"][0]["target"] == {"high": 1.0}
    plan = make_plan(["low"], 2)
    assert fill_folder(voice, tmp_path / "clips", plan, batch=2, guides=[guide])
    with pytest.raises(OutputError, match="guides"):
        fill_folder(voice, tmp_path / "clips", plan, batch=2)
    (clip,) = voice.generate("low", guides=[guide])
    np.testing.assert_allclose(read_audio(tmp_path / "clips" / "low" / "0.wav", 16000), clip.wave, atol=1e-3)
    settings = tmp_path / "clips" / "settings.json"
    facts = json.loads(settings.read_text())
    for later in ("way", "candidates"):  # as folders were written before guides could go straight, and choose
        del facts["guides"][0]["strength"][later]
    settings.write_text(json.dumps(facts))
    assert fill_folder(voice, tmp_path / "clips", plan, batch=2, guides=[guide])
