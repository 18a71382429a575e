"""networks/layout.py: which layers torch's kernel overruns, ours that avoid it with the same numbers, and a training on it to prove it."""

from __future__ import annotations

import copy
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from duovox.config import UNetConfig, read_recipe
from duovox.contracts import ConfigError
from duovox.evaluation.judge import build_network
from duovox.model import build_classifier, build_model
from duovox.networks.layout import StridedPointwise, keep_default_layout, overrunning, refuse_overrun, to_channels_last
from duovox.sound.vocoder.discriminators import Discriminators

# What the kernel overruns, as seen with guard bytes behind every buffer of torch, and what it does not. None of the first kind is run here.
OVERRUN = [
    nn.Conv2d(2, 4, 1, 2),
    nn.Conv2d(7, 14, 1, 2),
    nn.Conv2d(4, 1, 1, 2, bias=False),
    nn.Conv2d(4, 8, 1, 3),
    nn.Conv2d(4, 8, 1, (1, 2)),
    nn.Conv2d(4, 8, 1, (2, 1)),
    nn.ConvTranspose2d(16, 4, 1, 2),
]
SOUND = [
    nn.Conv2d(1, 4, 1, 2),
    nn.Conv2d(8, 16, 1, 2),
    nn.Conv2d(4, 8, 1),
    nn.Conv2d(4, 8, 3, 2, 1),
    nn.Conv2d(4, 8, (1, 3), 2),
    nn.Conv2d(4, 8, 2, 4),
    nn.Conv2d(4, 8, 1, 2, groups=2),
    nn.ConvTranspose2d(4, 16, 1, 2),
    nn.ConvTranspose2d(8, 4, 2, 2),
    nn.Conv1d(4, 8, 1, 2),
    nn.Conv3d(4, 8, 1, 2),
]


def channels_last(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layer", OVERRUN, ids=repr)
def test_layers_that_overrun_are_found_by_name_and_refused(layer: nn.Module) -> None:
    network = nn.Sequential(nn.ReLU(), nn.Sequential(layer))
    assert [name for name, _ in overrunning(network)] == ["1.0"]
    with pytest.raises(ConfigError, match=r"Sequential\.1\.0 is a 1x1 convolution of \d channels .*StridedPointwise"):
        to_channels_last(network)
    assert not isinstance(layer, nn.Conv2d) or layer.weight.stride()[1] == 1


@pytest.mark.parametrize("layer", SOUND, ids=repr)
def test_other_layers_pass(layer: nn.Module) -> None:
    assert overrunning(nn.Sequential(layer)) == []
    refuse_overrun(layer)


@pytest.mark.parametrize(("inputs", "stride"), [(1, 2), (2, 2), (3, 3), (7, 2), (7, 1), (8, 2), (20, 2)])
@pytest.mark.parametrize("size", [(16, 12), (9, 7)])
def test_a_strided_pointwise_convolution_is_torchs(inputs: int, stride: int, size: tuple[int, int]) -> None:
    """Names, first weights, outputs and both gradients, against torch's own in the default layout."""
    layers = []
    for make in (lambda: StridedPointwise(inputs, 5, stride), lambda: nn.Conv2d(inputs, 5, 1, stride, bias=False)):
        torch.manual_seed(0)
        layers.append(make())
    ours, theirs = layers
    assert ours.state_dict().keys() == theirs.state_dict().keys() and torch.equal(ours.weight, theirs.weight)
    x = channels_last((3, inputs, *size)).requires_grad_()
    y = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    to_channels_last(ours)(x).square().sum().backward()
    theirs(y).square().sum().backward()
    torch.testing.assert_close(ours(x), theirs(y))
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("name", ["compact", "paper"])
def test_networks_of_ours_pass_at_any_width(name: str) -> None:
    recipe = read_recipe(name)
    narrow = replace(
        recipe,
        classifier=replace(recipe.classifier, widths=(2, 3, 5, 7)),
        subnet=replace(recipe.subnet, widths=(4, 4, 4, 4), heads=2),
        unet=UNetConfig(recipe.unet.patch, (2, 3, 5, 7), (2, 3, 5, 7), blocks=1),
    )
    for recipe in (read_recipe(name), narrow):
        for score_model in ("subnet", "unet"):
            to_channels_last(build_model(replace(recipe, score_model=score_model), build_classifier(recipe, 3)))  # type: ignore[arg-type]
    for kind in ("compact", "resnext29"):
        to_channels_last(build_network(kind, 3))  # type: ignore[arg-type]
    refuse_overrun(Discriminators(2))


def test_layers_of_others_compute_in_the_default_layout_with_the_same_result() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 1, 2)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = copy.deepcopy(network)
    keep_default_layout(network)
    seen: list[bool] = []
    network[2].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].is_contiguous() and layer.weight.stride()[2] == 1))
    x = channels_last((2, 1, 16, 16))
    torch.testing.assert_close(network(x), before(x))
    assert seen == [True]
    assert network.state_dict().keys() == before.state_dict().keys()
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last), "the other layers stay as they were"


TRAINING = """
import torch
from duovox.evaluation.judge import CompactJudge
from duovox.networks.layout import to_channels_last
CompactJudge.widths = (2, 3, 4)
torch.manual_seed(0)
judge = to_channels_last(CompactJudge(3))
for _ in range(10):
    logits, _ = judge((-40 * torch.rand(8, 1, 32, 32)).contiguous(memory_format=torch.channels_last))
    logits.square().mean().backward()
print("trained", all(p.grad.isfinite().all() for p in judge.parameters()))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is of x86 processors")
def test_a_narrow_judge_trains_with_the_kernels_of_most_laptops() -> None:
    """oneDNN says which kernels it ran: those of AVX2, and never the one that overruns with its channels."""
    isa = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", TRAINING], env={**os.environ, **isa}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = re.findall(r"exec,cpu,convolution,([\w:]+),(\w+),.*?_?ic(\d+)oc\d+_\S*kh(\d+)sh(\d+)", done.stdout)
    assert "trained True" in done.stdout and any(name.endswith(":avx2") for name, *_ in kernels)
    assert not [k for k in kernels if k[0] == "brgconv_strided:avx2" and k[1] == "backward_data" and int(k[2]) < 8 and k[3:] == ("1", "2")]
