"""cli.py: every command does what it says, every mistake is one line and an exit code, nothing of the user's is touched."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from conftest import TONES, tone

from duovox import Duovox, __version__, files
from duovox.bundle import Bundle, write_bundle
from duovox.cli import _ended_by_signals, main
from duovox.commands.options import parse_seconds
from duovox.config import PRESETS, Recipe, write_recipe
from duovox.contracts import ConfigError
from duovox.sound.audio import write_audio


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def go(*words: object) -> Result:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:  # help and wrong usage
            code = int(leaving.code or 0)
        return Result(code, *capsys.readouterr())

    return go


def python(*words: object, cwd: Path | None = None) -> Result:
    """Run `python ...` as another process."""
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=300)
    return Result(done.returncode, done.stdout, done.stderr)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_one_line(result: Result, *words: str) -> None:
    """A mistake of the user's: exit code 1 and one line."""
    assert result.code == 1, result
    assert result.err.startswith("duovox: ") and result.err.endswith("\n") and result.err.count("\n") == 1, result.err
    for word in words:
        assert word in result.err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def recipe_file(tiny_recipe: Recipe, tmp_path: Path) -> Path:
    """The tiny recipe as a TOML file, with a vocoder of two steps."""
    path = tmp_path / "tiny.toml"
    vocoder = dataclasses.replace(tiny_recipe.train_vocoder, updates=2)
    path.write_text(write_recipe(dataclasses.replace(tiny_recipe, train_vocoder=vocoder)))
    return path


# help and usage

COMMANDS = ["generate", "classify", "data", "data fetch", "data prepare", "train", "evaluate", "inspect", "bundle"]


def test_help_answers_at_once_and_without_torch() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = python("-m", "duovox", "--help")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1
    assert result.code == 0 and result.err == ""
    assert all(name in result.out for name in ("generate", "classify", "data", "train", "inspect", "bundle"))
    ask = "\n".join(
        [
            "import sys",
            "from duovox.cli import main",
            f"for command in {COMMANDS!r}:",
            "    try: main([*command.split(), '--help'])",
            "    except SystemExit as leaving: assert not leaving.code",
            "    else: raise AssertionError(command)",
            "print('heavy:', [name for name in ('torch', 'numpy', 'soundfile', 'safetensors') if name in sys.modules])",
        ]
    )
    result = python("-c", ask)
    assert result.code == 0 and result.out.endswith("heavy: []\n"), result


def test_it_says_its_version(run: Run) -> None:
    assert run("--version") == (0, f"duovox {__version__}\n", "")


@pytest.mark.parametrize(("theirs", "spin"), [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)])
def test_threads_that_wait_soon_sleep_unless_the_user_wants_otherwise(
    theirs: dict[str, str], spin: str | None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what the command sets is undone
        monkeypatch.delenv(name)
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    run("--version")
    assert os.environ.get("GOMP_SPINCOUNT") == spin and os.environ.get("OMP_WAIT_POLICY") == theirs.get("OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["speak"],
        ["generate"],
        ["generate", "low", "--steps", "many"],
        ["generate", "low", "--sampler", "ddim"],
        ["generate", "low", "--interval", "1"],
        ["generate", "low", "--louder"],
        ["classify", "--jsn"],
        ["data"],
        ["data", "fetch", "imagenet"],
        ["data", "prepare", "words"],
        ["train", "classifier", "--out", "runs"],
        ["train", "everything", "--data", "d", "--out", "o"],
        ["bundle", "runs"],
    ],
)
def test_wrong_usage_is_2_without_a_traceback(run: Run, here: Path, words: list[str]) -> None:
    result = run(*words)
    assert result.code == 2
    assert result.err and "Traceback" not in result.err and result.out == ""
    assert contents(here) == {}


def test_a_reader_that_leaves_early_causes_no_noise() -> None:
    process = subprocess.Popen([sys.executable, "-m", "duovox", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(240) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_that_writes_and_leaves_nothing_unfinished(
    run: Run, here: Path, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    seen: list[list[str]] = []
    said: list[tuple[int, bytes]] = []

    def end(*_: object) -> None:
        seen.append(sorted(contents(here)))
        os.kill(os.getpid(), number)

    monkeypatch.setattr("os.replace", end)
    monkeypatch.setattr("os.write", lambda file, content: said.append((file, content)))
    result = run("generate", "low", "--out", "low.wav", "--bundle", bundle_folder, "--keep-faulty")
    assert (result.code, result.err, contents(here)) == (128 + number, "", {})
    assert [len(names) for names in seen] == [1] and seen[0][0].endswith(".partial")
    assert said == [(2, f"duovox: stopped by {number.name}\n".encode())]
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _ended_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


# generate


def test_generate_writes_sound_story_and_picture(run: Run, here: Path, bundle_folder: Path) -> None:
    result = run("generate", "low", "--out", "a/low.wav", "--bundle", bundle_folder, "--seed", 3, "--gamma", 0.5, "--spectrogram")
    assert result.code == 0 and result.err == ""
    assert sorted(contents(here)) == ["a/low.json", "a/low.png", "a/low.wav"]
    voice = Duovox.from_pretrained(bundle_folder)
    (clip,) = voice.generate("low", seed=3, gamma=0.5)
    samples, rate = soundfile.read("a/low.wav")
    assert rate == 16000 and np.abs(samples - clip.wave).max() <= 1.01 / 2**15
    story = json.loads((here / "a" / "low.json").read_text())
    assert story["label"] == "low" and story["seed"] == 3 and story["vocoder"] == "neural"
    assert story["settings"]["gamma"] == 0.5 and story["settings"]["steps"] == 3 and story["settings"]["guidance_high"] == "inf"
    assert story["bundle"] == voice.config.digest
    assert story["probabilities"] == pytest.approx(clip.probabilities, abs=1e-5)
    assert (here / "a" / "low.png").read_bytes().startswith(b"\x89PNG")
    heard = max(clip.probabilities, key=clip.probabilities.__getitem__)
    assert result.out == f"a/low.wav: low, seed 3, heard as {heard} ({clip.probabilities[heard]:.3f})\n"


def test_the_story_says_the_preset_and_the_arithmetic(run: Run, here: Path, bundle_folder: Path) -> None:
    words = ["generate", "high", "--bundle", bundle_folder, "--out", "high.wav", "--keep-faulty", "--force"]
    assert run(*words).code == 0
    story = json.loads((here / "high.json").read_text())
    assert (story["settings"]["preset"], story["precision"]) == ("own", "fp32")
    assert run(*words, "--preset", "balanced", "--steps", "3", "--precision", "bf16").code == 0
    story = json.loads((here / "high.json").read_text())
    assert (story["settings"]["preset"], story["settings"]["steps"], story["precision"]) == ("balanced", 3, "bf16")
    assert story["settings"]["sampler"] == PRESETS["balanced"]["sampler"]


def test_generate_names_clips_in_a_folder_and_twice_gives_the_same_bytes(run: Run, here: Path, bundle_folder: Path) -> None:
    for out, batch in (("one", 1), ("two", 1)):
        words = ["generate", "any", "--n", 2, "--seed", 7, "--out", out, "--bundle", bundle_folder, "--batch", batch, "--format", "ogg"]
        assert run(*words).code == 0
    assert sorted(contents(here / "one")) == ["any_7.json", "any_7.ogg", "any_8.json", "any_8.ogg"]
    assert contents(here / "one") == contents(here / "two")
    assert json.loads((here / "one" / "any_7.json").read_text())["label"] is None
    assert contents(here)["one/any_7.ogg"] != contents(here)["one/any_8.ogg"]


def test_the_suffix_chooses_the_format(run: Run, here: Path, bundle_folder: Path) -> None:
    assert run("generate", "mid", "--out", "m.FLAC", "--bundle", bundle_folder).code == 0
    assert soundfile.info("m.FLAC").format == "FLAC"


def test_a_label_called_any_can_be_spoken(run: Run, here: Path, tiny_bundle: Bundle, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_bundle.config, labels=("any", "low", "mid"))
    write_bundle(dataclasses.replace(tiny_bundle, config=config), tmp_path / "b")
    assert run("generate", "any", "--out", "a.wav", "--bundle", tmp_path / "b").code == 0
    assert json.loads((here / "a.json").read_text())["label"] == "any"


def test_a_word_in_capitals_is_understood_and_named_as_its_label(run: Run, here: Path, bundle_folder: Path) -> None:
    assert run("generate", "LOW", "--bundle", bundle_folder).out.startswith("low_0.wav: low, seed 0")
    assert sorted(contents(here)) == ["low_0.json", "low_0.wav"]
    assert_one_line(run("generate", "Low", "--bundle", bundle_folder), "low_0.wav exists; add --force")
    assert_one_line(
        run("generate", "lo", "--bundle", bundle_folder), "unknown label 'lo'; the nearest: low; this model speaks: high, low, mid"
    )


@pytest.mark.parametrize("taken", ["low.wav", "low.json", "low.png"])
def test_nothing_is_overwritten_without_force(
    run: Run, here: Path, bundle_folder: Path, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / taken).write_bytes(b"mine")
    words = ["generate", "low", "--out", "low.wav", "--bundle", bundle_folder, "--spectrogram"]
    with monkeypatch.context() as patch:
        patch.setattr(Duovox, "generate", lambda *_, **__: pytest.fail("worked before looking"))
        assert_one_line(run(*words), taken, "--force")
    assert contents(here) == {taken: b"mine"}
    assert run(*words, "--force").code == 0
    assert sorted(contents(here)) == ["low.json", "low.png", "low.wav"] and contents(here)[taken] != b"mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["high", "--steps", "0"], ["steps must be positive"]),
        (["high", "--gamma", "-1"], ["gamma must not be negative"]),
        (["high", "--gamma", "nan"], ["gamma must be finite"]),
        (["high", "--gamma", "1e30"], ["lower gamma"]),
        (["high", "--n", "0"], ["at least 1"]),
        (["high", "--n", "-2"], ["at least 1"]),
        (["high", "--batch", "0"], ["at least 1"]),
        (["high", "--seed", "-1"], ["seed"]),
        (["high", "--interval", "3", "1"], ["guidance_low"]),
        (["high", "--preset", "turbo"], ["preset turbo needs a distilled student", "use preset balanced"]),
        (["seven"], ["unknown label 'seven'", "high, low, mid"]),
        (["../seven"], ["unknown label '../seven'"]),
        (["x" * 300], ["unknown label"]),
        (["high", "--out", "clip.mp3"], ["cannot write .mp3", ".wav, .flac, .ogg"]),
        (["high", "--out", "clip.wav", "--n", "2"], ["give a folder"]),
        (["high", "--out", "y" * 300 + ".wav"], ["File name too long"]),
        (["high", "--out", "file/clip.wav"], ["cannot write file/clip.wav"]),
        (["high", "--out", "file"], ["cannot write file/high_0.wav"]),
        (["high", "--out", "taken"], ["taken/high_0.wav", "folder"]),
        (["high", "--out", "taken", "--force"], ["taken/high_0.wav", "folder"]),
        (["high", "--bundle", "nowhere"], ["no bundle at nowhere"]),
        (["high", "--bundle", "taken"], ["taken is no duovox bundle"]),
        (["high", "--vocoder", "neural", "--bundle", "{mute}"], ["no neural vocoder"]),
    ],
)
def test_mistakes_in_generate(
    run: Run, here: Path, bundle_folder: Path, tiny_bundle: Bundle, tmp_path: Path, words: list[str], said: list[str]
) -> None:
    if "{mute}" in words:
        write_bundle(dataclasses.replace(tiny_bundle, vocoder=None), tmp_path / "mute")
        words = [word.replace("{mute}", str(tmp_path / "mute")) for word in words]
    (here / "file").write_bytes(b"mine")
    (here / "taken" / "high_0.wav").mkdir(parents=True)
    bundle = [] if "--bundle" in words else ["--bundle", bundle_folder]
    assert_one_line(run("generate", *words, *bundle), *said)
    assert contents(here) == {"file": b"mine"}
    assert sorted(p.name for p in here.rglob("*")) == ["file", "high_0.wav", "taken"]


def test_a_folder_without_permission_is_seen_before_the_work(
    run: Run, here: Path, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for anyone but root
    monkeypatch.setattr(Duovox, "generate", lambda *_, **__: pytest.fail("worked before looking"))
    assert_one_line(run("generate", "low", "--out", "low.wav", "--bundle", bundle_folder), "no permission to write")
    assert contents(here) == {}


def test_a_full_disk_leaves_nothing_half_written(run: Run, here: Path, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", full)
    assert_one_line(run("generate", "low", "--out", "low.wav", "--bundle", bundle_folder), "low.wav", "No space left")
    assert contents(here) == {}


def test_an_interruption_is_one_line_and_130(run: Run, here: Path, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Duovox, "generate_batch", interrupt)
    assert run("generate", "low", "--bundle", bundle_folder) == Result(130, "", "duovox: interrupted\n")
    assert contents(here) == {}


def test_the_module_is_the_command(here: Path, bundle_folder: Path) -> None:
    """In processes of their own: speak, then listen; a mistake keeps to one line there too."""
    spoken = python("-m", "duovox", "generate", "low", "--out", "low.wav", "--bundle", bundle_folder, cwd=here)
    assert (spoken.code, spoken.err) == (0, "") and spoken.out.startswith("low.wav: low, seed 0, heard as ")
    heard = python("-m", "duovox", "classify", "low.wav", "nothing.wav", "--json", "--bundle", bundle_folder, cwd=here)
    assert_one_line(heard, "nothing.wav: no such file")
    assert set(json.loads(heard.out)["low.wav"]) == set(TONES)


# classify


@pytest.fixture
def sounds(here: Path) -> Path:
    for number, label in enumerate(TONES):
        write_audio(here / "sounds" / label / f"{number}.wav", tone(label, 40), 16000, parents=True)
    write_audio(here / "sounds" / "top.flac", np.tile(tone("mid", 41), 9), 16000)
    (here / "sounds" / "notes.txt").write_text("no sound")
    (here / "sounds" / "folder.wav").mkdir()
    return here / "sounds"


def test_classify_prints_a_table(run: Run, sounds: Path, bundle_folder: Path) -> None:
    result = run("classify", "sounds", "--bundle", bundle_folder)
    assert result.code == 0
    assert result.err == "note: sounds/top.flac: lasts 2.16 s, the loudest 0.24 s from 0 s on counts\n"
    lines = [line.split("\t") for line in result.out.splitlines()]
    assert [line[0] for line in lines] == ["sounds/high/0.wav", "sounds/low/1.wav", "sounds/mid/2.wav", "sounds/top.flac"]
    voice = Duovox.from_pretrained(bundle_folder)
    for name, *words in lines:
        best = sorted(voice.classify(name).items(), key=lambda item: -item[1])
        assert words == [f"{label} {p:.3f}" for label, p in best]


def test_classify_as_json(run: Run, sounds: Path, bundle_folder: Path) -> None:
    result = run("classify", "sounds/low", "sounds/top.flac", "--json", "--bundle", bundle_folder)
    assert result.code == 0 and result.err.startswith("note: sounds/top.flac: lasts 2.16 s")
    heard = json.loads(result.out)
    assert list(heard) == ["sounds/low/1.wav", "sounds/top.flac"]
    assert all(sum(p.values()) == pytest.approx(1, abs=1e-6) and tuple(p) == tuple(TONES) for p in heard.values())


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_bad_files_are_told_and_good_ones_still_heard(run: Run, sounds: Path, bundle_folder: Path, form: list[str]) -> None:
    (sounds / "empty.wav").write_bytes(b"")
    (sounds / "text.wav").write_bytes(b"not sound at all, but long enough to be looked into" * 9)
    whole = (sounds / "low" / "1.wav").read_bytes()
    (sounds / "header.wav").write_bytes(whole[:44])
    soundfile.write(sounds / "nan.wav", np.array([0.0, np.nan, 0.1]), 16000, subtype="FLOAT")
    soundfile.write(sounds / "long.wav", np.zeros(61 * 8000), 8000)
    soundfile.write(sounds / "quiet.wav", np.zeros(8000), 8000)
    soundfile.write(sounds / "scale.wav", 13000 * tone("low", 1), 16000, subtype="FLOAT")
    (sounds / "lost.wav").symlink_to(sounds / "nowhere.wav")
    (sounds / ".hidden.wav").write_bytes(b"passed over")
    result = run("classify", "sounds", "gone.wav", "--bundle", bundle_folder, *form)
    assert result.code == 1
    lines = [line for line in result.err.splitlines() if not line.startswith("note: ")]
    assert [line.split(": ")[1] for line in lines] == [
        *(f"sounds/{name}.wav" for name in ("lost", "empty", "header", "long", "nan", "quiet", "scale", "text")),
        "gone.wav",
    ]
    assert all(line.startswith("duovox: ") for line in lines)
    good = ["sounds/high/0.wav", "sounds/low/1.wav", "sounds/mid/2.wav", "sounds/top.flac"]
    assert (list(json.loads(result.out)) if form else [line.split("\t")[0] for line in result.out.splitlines()]) == good


def test_more_clips_than_a_data_set_should_have(run: Run, here: Path) -> None:
    assert_one_line(
        run("generate", "high", "--n", "1000000000"),
        "--n 1000000000 exceeds 10000",
        "dataset --words high --per-word 1000000000 --out FOLDER",
    )


def test_a_command_that_there_is_not(run: Run) -> None:
    result = run("genrate", "three")
    assert result.code == 2 and result.err.startswith("duovox: no command 'genrate'; the nearest: generate; there are generate, say, ")
    assert run("xyz").err.startswith("duovox: no command 'xyz'; there are generate")
    assert run("data", "prepar", "x").err == "duovox: no command 'prepar'; the nearest: prepare; there are fetch, prepare, respeak\n"


def test_words_need_no_quotes(run: Run, here: Path, bundle_folder: Path) -> None:
    for words in (["high low"], ["high", "low"]):
        assert run("say", *words, "--bundle", bundle_folder, "--out", "b.wav", "--force").code == 0
        assert [word["label"] for word in json.loads((here / "b.json").read_text())["words"]] == ["high", "low"]


def test_what_is_in_the_package_is_not_calibrated_in_place(run: Run, here: Path) -> None:
    assert_one_line(run("calibrate", "words", "--data", "features"), "words is in the package and stays as it is; give --out")


def test_a_speaker_that_is_no_guide_of_speakers(run: Run, here: Path, bundle_folder: Path) -> None:
    assert_one_line(
        run("say", "high low", "--bundle", bundle_folder, "--speaker", "pitch"), "'pitch' is no guide of speakers; take speaker"
    )
    assert not (here / "said.wav").exists()


def test_classify_with_nothing_to_hear(run: Run, here: Path, bundle_folder: Path) -> None:
    (here / "empty").mkdir()
    assert_one_line(run("classify", "empty", "--bundle", bundle_folder), "no sound files", "empty")
    assert_one_line(run("classify", "--bundle", bundle_folder), "no sound files")
    result = run("classify", "gone.wav", "--json", "--bundle", bundle_folder)
    assert_one_line(result, "gone.wav: no such file")
    assert json.loads(result.out) == {}
    assert_one_line(run("classify", "gone.wav", "--bundle", here), "no duovox bundle")


def test_standard_input_is_heard(run: Run, sounds: Path, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sounds / "low" / "1.wav"
    alone = json.loads(run("classify", file, "--json", "--bundle", bundle_folder).out)
    for content, code in ((file.read_bytes(), 0), (b"", 1)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        result = run("classify", "-", "--json", "--bundle", bundle_folder)
        assert result.code == code
        assert json.loads(result.out) == ({} if code else {"-": alone[str(file)]})
    assert_one_line(result, "standard input: is empty")


def test_strange_names_are_escaped(run: Run, sounds: Path, bundle_folder: Path) -> None:
    shutil.copy(sounds / "top.flac", sounds / "a\nb\x1b[2J.flac")
    (sounds / "c\rd.wav").write_bytes(b"no sound")
    result = run("classify", "sounds", "--bundle", bundle_folder)
    shown = r"sounds/a\nb\x1b[2J.flac"
    assert shown + "\t" in result.out and f"note: {shown}: lasts" in result.err and r"duovox: sounds/c\rd.wav: is not sound" in result.err
    assert result.err.count("\n") == 3 and not {"\x1b", "\r"} & set(result.out + result.err)


def test_file_names_that_are_no_text(run: Run, sounds: Path, bundle_folder: Path) -> None:
    """Names are bytes; a terminal that cannot show one gets an escape instead of a traceback."""
    odd = os.fsencode(sounds / "odd") + b"\xff.wav"
    shutil.copy(sounds / "low" / "1.wav", odd)
    result = run("classify", "sounds", "--bundle", bundle_folder)
    assert result.code == 0 and r"odd\udcff.wav" in result.out, result


# data


def test_prepare_counts_and_says_what_it_left_out(run: Run, here: Path, tiny_words: Path, recipe_file: Path) -> None:
    words = Path(shutil.copytree(tiny_words, here / "words"))
    (words / "low" / "notes.txt").write_text("no sound")
    (words / "mid" / "broken.wav").write_bytes(b"RIFF")
    for number in range(11):
        write_audio(words / "high" / f"quiet\x1b{number}.wav", np.zeros(800), 16000)
    write_audio(words / "high" / "long.wav", np.tile(tone("high", 1), 3), 16000)
    result = run("data", "prepare", "words", "--out", "features", "--recipe", recipe_file)
    assert result.code == 0
    table = [line.split() for line in result.out.splitlines()]
    assert table[0] == ["label", "train", "validation", "test"]
    assert sum(map(int, table[1][1:])) == 11 and table[2:4] == [[label, "6", "2", "2"] for label in ("low", "mid")]
    assert "note: 1 clips longer than 3840 samples were cut to their loudest part\n" in result.out
    assert "skipped low/notes.txt: " in result.out and r"skipped high/quiet\x1b0.wav: is silent" in result.out and "\x1b" not in result.out
    assert "... and 3 more, all in features/manifest.json; by reason:\n          11 is silent\n" in result.out
    assert sorted(contents(here / "features")) == ["log_mels.npy", "manifest.json", "waves.npy"]


def test_prepare_takes_several_folders_with_speakers_and_languages(run: Run, here: Path, recipe_file: Path) -> None:
    for root, labels in (("english", ("low", "mid")), ("deutsch", ("high",))):
        for label in labels:
            for number, who in enumerate(("01", "02", "04", "10")):
                write_audio(here / root / label / f"speaker-{who}.wav", tone(label, number)[:3000], 16000, parents=True)
    words = ["data", "prepare", "english", "deutsch", "--out", "features", "--recipe", recipe_file, "--speaker", r"speaker-(\d+)"]
    words += ["--test-speakers", "04", "--validation-speakers", "10", "--languages", "en,de", "--place"]
    result = run(*words)
    assert result.code == 0, result
    table = [line.split() for line in result.out.splitlines()[1:4]]
    assert table == [["high", "(de)", "2", "1", "1"], ["low", "(en)", "2", "1", "1"], ["mid", "(en)", "2", "1", "1"]]
    assert "note: speakers: 4 by the pattern (12 clips)\n" in result.out
    assert "note: 12 clips shorter than 3840 samples were put at a drawn place" in result.out
    assert run(*words).err.endswith("features is up to date\n")


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (lambda root: None, ["--speaker", "speaker"], "has 0 groups"),
        (lambda root: None, ["--test-speakers", "anna"], "no clip is of the test speaker 'anna'"),
        (lambda root: None, ["--languages", "en,"], "the language '' is empty"),
        (lambda root: (root / "speakers.csv").write_text("path,who"), [], "no column speaker"),
        (lambda root: [shutil.rmtree(root / label) for label in ("high", "mid")], [], "at least 2 different labels"),
        (shutil.rmtree, [], "no such folder"),
        (lambda root: [path.unlink() for path in sorted((root / "low").iterdir())[1:]], [], "label 'low' has 1 usable clips"),
        (lambda root: [path.write_bytes(b"RIFF") for path in root.rglob("*.wav")], [], "no usable audio"),
        (lambda root: None, ["--labels", "low,nine"], "no folder for the labels nine"),
        (lambda root: None, ["--recipe", "gone.toml"], "cannot read recipe gone.toml"),
        (lambda root: None, ["--recipe", "huge"], "no recipe named 'huge'"),
    ],
)
def test_mistakes_in_prepare(
    run: Run, here: Path, tiny_words: Path, recipe_file: Path, change: Callable[[Path], object], words: list[str], said: str
) -> None:
    change(Path(shutil.copytree(tiny_words, here / "words")))
    before = contents(here)
    recipe = [] if "--recipe" in words else ["--recipe", recipe_file]
    result = run("data", "prepare", "words", "--out", "features", *recipe, *words)
    assert result.code == 1 and result.err.splitlines()[-1].startswith("duovox: ") and said in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert contents(here) == before


# train, bundle, inspect


def test_from_words_to_a_voice_of_ones_own(run: Run, here: Path, tiny_words: Path, recipe_file: Path) -> None:
    """The README's commands, one after the other."""
    assert run("data", "prepare", tiny_words, "--out", "features", "--recipe", recipe_file).code == 0
    for part in ("classifier", "subnet", "vocoder"):
        train = ["train", part, "--data", "features", "--out", "run", "--recipe", recipe_file, "--device", "cpu"]
        stopped = run(*train, "--time-budget", "0s")
        assert stopped.code == 0 and f"{part}: stopped (go on with --resume) at step 0 of " in stopped.out
        again = run(*train)
        assert again.code == 1 and "already holds a run; add --resume" in again.err.splitlines()[-1]
        finished = run(*train, "--resume", "--precision", "fp32")
        assert finished.code == 0 and f"{part}: finished at step " in finished.out
        assert f"weights in run/{part}/weights.safetensors" in finished.out
    (here / "card.md").write_text("# My voice\n")
    (here / "scores.json").write_text('{"accuracy": 0.5}')
    bundle = ["bundle", "run", "--out", "voice", "--recipe", recipe_file, "--card", "card.md", "--scores", "scores.json"]
    made = run(*bundle)
    assert made.code == 0 and made.err == "" and made.out.startswith("voice: high, low, mid; digest ")
    assert (here / "voice" / "README.md").read_text() == "# My voice\n"
    before = contents(here / "voice")
    assert_one_line(run(*bundle), "--force")
    assert run(*bundle, "--force").out == made.out
    assert contents(here / "voice") == before
    facts = json.loads(run("inspect", "voice", "--json").out)
    assert facts["bundle"].startswith(made.out.split()[-1]) and facts["scores"] == {"accuracy": 0.5}
    assert facts["origin"]["vocoder"]["step"] == 2 and facts["parameters"]["vocoder"] > 0
    hardly_trained = run("generate", "low", "--bundle", "voice", "--out", "low.wav")
    assert hardly_trained.code == 1 and "1 of 1 clips ran off to no speech (seed 0: its log-mel reaches" in hardly_trained.err
    assert not list(here.glob("low*"))
    assert run("generate", "low", "--bundle", "voice", "--out", "low.wav", "--keep-faulty").code == 0
    assert "louder than a full-scale tone" in json.loads((here / "low.json").read_text())["fault"]
    assert json.loads((here / "low.json").read_text())["vocoder"] == "neural"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time-budget", "5x"], ["time budget '5x'", "20m"]),
        (["--time-budget", "-5s"], ["time budget '-5s'"]),
        (["--recipe", "huge"], ["no recipe named 'huge'", "compact"]),
        (["--data", "nowhere"], ["nowhere is no feature folder"]),
        (["--data", "{features}", "--recipe", "compact"], ["other mel settings"]),
        (["--out", "file"], ["cannot write a training to"]),
    ],
)
def test_mistakes_in_train(run: Run, here: Path, tiny_features: Path, recipe_file: Path, words: list[str], said: list[str]) -> None:
    (here / "file").write_text("mine")
    given = {"--data": str(tiny_features), "--out": "run", "--recipe": str(recipe_file), "--device": "cpu"}
    given |= {name: value.replace("{features}", str(tiny_features)) for name, value in zip(words[::2], words[1::2], strict=True)}
    assert_one_line(run("train", "classifier", *(word for item in given.items() for word in item)), *said)
    assert contents(here) == {"file": b"mine"}


def test_a_subnet_without_its_classifier(run: Run, here: Path, tiny_features: Path, recipe_file: Path) -> None:
    result = run("train", "subnet", "--data", tiny_features, "--out", "run", "--recipe", recipe_file, "--device", "cpu")
    assert_one_line(result, "no trained classifier", "duovox train classifier")
    assert contents(here) == {}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("20m", 1200), ("1.5h", 5400), (" 2h ", 7200), ("0", 0), ("0.5s", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5x", "m", "-3", "1e3", "1:30", "5 minutes", "nan", "inf", "1.h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no duration; write it as 90s, 20m or 1\.5h"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("files", "words", "said"),
    [
        ({}, [], ["no trained classifier"]),
        ({"s.json": "[1, 2]"}, ["--scores", "s.json"], ["s.json is not a JSON object"]),
        ({"s.json": "5"}, ["--scores", "s.json"], ["s.json is not a JSON object"]),
        ({"s.json": "{"}, ["--scores", "s.json"], ["s.json is not a JSON object"]),
        ({}, ["--scores", "gone.json"], ["cannot read gone.json"]),
        ({}, ["--card", "gone.md"], ["cannot read gone.md"]),
    ],
)
def test_mistakes_in_bundle(run: Run, here: Path, recipe_file: Path, files: dict[str, str], words: list[str], said: list[str]) -> None:
    for name, text in files.items():
        (here / name).write_text(text)
    before = contents(here)
    assert_one_line(run("bundle", "run", "--out", "voice", "--recipe", recipe_file, *words), *said)
    assert contents(here) == before


def test_a_bundle_of_another_recipe_names_the_setting(run: Run, here: Path, tiny_runs: Path) -> None:
    assert_one_line(run("bundle", tiny_runs, "--out", "voice"), "classifier", "recipe compact has")
    assert contents(here) == {}


def test_inspect_a_recipe_and_a_bundle(run: Run, here: Path, bundle_folder: Path, recipe_file: Path, tiny_features: Path) -> None:
    text = run("inspect", recipe_file)
    assert text.code == 0 and "GMACs:" in text.out and "gradient_taps: label" in text.out
    facts: dict[str, Any] = json.loads(run("inspect", bundle_folder, "--json", "--data", tiny_features).out)
    assert facts["labels"] == list(TONES)
    assert len(facts["accuracy by sigma (test split)"]) == 9
    assert_one_line(run("inspect", recipe_file, "--data", tiny_features), "recipe")
    assert_one_line(run("inspect", "nonsense"), "no bundle at nonsense", "recipe")
    assert_one_line(run("inspect", "gone.toml"), "cannot read recipe gone.toml")
    assert contents(here) == {}
