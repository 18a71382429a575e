"""No torch on the way: in an interpreter that refuses it, and (DUOVOX_LONGER=1: a minute, and packages) in an environment without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FORBIDDEN = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "safetensors", "tomli_w", "tqdm", "PIL"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Forbidden())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else found(name, *rest)
"""

COMMAND = FORBIDDEN + "\nfrom duovox.cli import main\nsys.exit(main(sys.argv[1:]))"


def without_torch(*arguments: str, code: str = COMMAND) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment)


def test_python(exported_folder: Path) -> None:
    code = FORBIDDEN + (
        "from duovox.lite import Voice\n"
        "voice = Voice(sys.argv[1], threads=1)\n"
        "clip = voice.generate('seven', seed=7, keep_faulty=True)[0]\n"
        "print(clip.wave.shape, sorted(voice.classify(clip.wave + 0.01)) == sorted(voice.labels))"
    )
    result = without_torch(str(exported_folder), code=code)
    assert result.stdout == "(3840,) True\n", result.stderr


def test_the_command_line(exported_folder: Path, tmp_path: Path) -> None:
    spoken = without_torch(
        "generate", "7", "--n", "3", "--batch", "2", "--keep-faulty", "--model", str(exported_folder), "--out", str(tmp_path)
    )
    assert spoken.returncode == 0, spoken.stderr
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == [f"seven_{seed}.wav" for seed in range(3)]
    story = json.loads((tmp_path / "seven_0.json").read_text())
    assert story["label"] == "seven" and story["bundle"] == json.loads((exported_folder / "manifest.json").read_text())["bundle"]
    heard = without_torch("classify", str(tmp_path / "seven_0.wav"), "--json", "--model", str(exported_folder))
    assert set(json.loads(heard.stdout)[str(tmp_path / "seven_0.wav")]) == {"null", "one", "seven"}, heard.stderr


def test_a_student_by_the_command_line(exported_folder: Path, tmp_path: Path) -> None:
    words = (
        "generate",
        "seven",
        "--model",
        str(exported_folder),
        "--preset",
        "turbo",
        "--keep-faulty",
        "--out",
        str(tmp_path / "seven.wav"),
    )
    assert without_torch(*words).returncode == 0
    settings = json.loads((tmp_path / "seven.json").read_text())["settings"]
    assert (settings["preset"], settings["sampler"], settings["steps"]) == ("turbo", "student", 4)
    refused = without_torch(*words[:-1], str(tmp_path / "other.wav"), "--steps", "3")
    assert (refused.returncode, refused.stderr) == (1, "duovox: the student was not taught 3 steps; set steps to one of 1, 2, 4\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "seven"), "PyTorch is not installed: give --model a folder made by `duovox export`, or pip install torch"),
        (("classify", "sound.wav"), "PyTorch is not installed: give --model"),
        (("inspect", "sc06"), "PyTorch is not installed: pip install torch; generate and classify do without it, with --model"),
        (("generate", "seven", "--model", "nowhere"), "nowhere is no exported voice"),
        (("generate", "seven", "--model", "nowhere", "--precision", "bf16"), "--precision bf16 is PyTorch's"),
    ],
)
def test_what_needs_torch_says_so_on_one_line(arguments: tuple[str, ...], words: str) -> None:
    result = without_torch(*arguments)
    assert result.returncode == 1 and result.stderr.startswith(f"duovox: {words}") and result.stderr.count("\n") == 1


def test_a_picture_needs_a_package_more(exported_folder: Path, tmp_path: Path) -> None:
    arguments = ("generate", "seven", "--keep-faulty", "--spectrogram", "--model", str(exported_folder), "--out", str(tmp_path))
    result = without_torch(*arguments)
    assert (result.returncode, result.stderr) == (1, "duovox: PIL is not installed: pip install pillow\n")


@pytest.mark.skipif(not os.environ.get("DUOVOX_LONGER"), reason="makes a virtual environment and fetches packages: DUOVOX_LONGER=1")
def test_an_environment_without_torch(exported_folder: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True, system_site_packages=False)
    python = tmp_path / "venv" / "bin" / "python"
    for packages in (["onnxruntime", "numpy", "soundfile", "soxr", "tyro"], ["--no-deps", str(ROOT)]):
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 1
    code = (
        f"from duovox.lite import Voice; print(Voice({str(exported_folder)!r}).generate('seven', seed=7, keep_faulty=True)[0].wave.shape)"
    )
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.stdout == "(3840,)\n", result.stderr
    command = [tmp_path / "venv" / "bin" / "duovox", "generate", "seven", "--keep-faulty", "--model", exported_folder, "--out", "seven.wav"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert (tmp_path / "seven.wav").is_file()
