"""Any module learns to speak, and comes back from its bundle bit for bit, with what it needs and no more."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from speaking import (
    KINDS,
    WORDS,
    OnWaves,
    Plain,
    Recurrent,
    Spoken,
    one_line,
    round_as_bundles_do,
    snapshot,
    spoken_fixture,
    tellers_fixture,
)
from torch import Tensor, nn

from duovox.contracts import BundleError, ClassifierError
from duovox.voice import Duovox

tellers = tellers_fixture
spoken = spoken_fixture
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning")


def test_it_comes_back_from_its_bundle_bit_for_bit(spoken: Spoken) -> None:
    again = Duovox.from_pretrained(spoken.folder, **spoken.how)
    assert again.labels == WORDS and again.config.calibration == spoken.voice.config.calibration
    assert again.config.recipe.external == spoken.made.recipe.external
    round_as_bundles_do(spoken.voice)
    for label, seed in (("low", 3), (None, 4)):
        one, other = (voice.generate(label, seed=seed, steps=2, keep_faulty=True)[0] for voice in (spoken.voice, again))
        assert np.array_equal(one.log_mel, other.log_mel) and np.array_equal(one.wave, other.wave)
        assert one.probabilities == other.probabilities and np.ptp(one.log_mel) > 0.1
    assert not np.array_equal(again.generate("low", seed=5, steps=2, keep_faulty=True)[0].log_mel, one.log_mel)
    again.save_pretrained(spoken.folder.parent / "through", force=True)
    for path in spoken.folder.iterdir():
        assert path.read_bytes() == (spoken.folder.parent / "through" / path.name).read_bytes(), path.name


def test_the_bundle_holds_the_users_own_weights(spoken: Spoken) -> None:
    stored = load_file(spoken.folder / "model.safetensors")
    state = spoken.network.state_dict()
    names = {name.removeprefix("classifier.network.") for name in stored if name.startswith("classifier.network.")}
    assert names == state.keys()
    for name, value in state.items():
        held = stored[f"classifier.network.{name}"]
        assert held.dtype == value.dtype and held.equal(value.detach()), name


def test_the_users_module_is_untouched(spoken: Spoken) -> None:
    assert snapshot(spoken.network) == spoken.before


def test_it_hears_what_the_user_s_module_hears(spoken: Spoken) -> None:
    """Through its own front end, from a real wave: the probabilities are the module's own, under the right words."""
    wave = torch.randn(1, 3840, generator=torch.Generator().manual_seed(0)) * 0.1
    network = spoken.network
    was = [(layer, layer.training) for layer in network.modules()]
    try:
        with torch.no_grad():
            output = network.eval()(spoken.made.classifier.front_end.from_wave(wave))
    finally:
        for layer, mode in was:
            layer.training = mode
    logits = output if isinstance(output, Tensor) else output["scores" if "scores" in output else "logits"]
    heard = spoken.voice.classify(wave[0].numpy())
    assert list(heard) == list(WORDS)
    assert list(heard.values()) == pytest.approx(logits.softmax(1)[0].tolist(), abs=1e-5)


def test_what_the_bundle_needs_is_said(spoken: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    if spoken.source == "huggingface":
        assert Duovox.from_pretrained(spoken.folder).labels == WORDS
        monkeypatch.setitem(sys.modules, "transformers", None)
        words: tuple[str, ...] = ("pip install 'duovox[hf]'",)
    elif spoken.source == "object":
        words = ("Duovox.from_pretrained(path, classifier=module)",)
    else:
        what = {"factory": "the function their_words:build", "export": "network.pt2", "torchscript": "network.torchscript"}
        words = ("trust_code=True", what[spoken.source])
    with pytest.raises(BundleError) as caught:
        Duovox.from_pretrained(spoken.folder)
    one_line(caught, *words)


def test_each_kind_is_kept_in_its_own_way(tellers: Callable[[str], Spoken]) -> None:
    sources = {kind: tellers(kind).source for kind in KINDS if kind != "whisper"}
    expected = {"plain": "export", "gru": "object", "waves": "export", "factory": "factory", "export": "export", "script": "torchscript"}
    assert sources == expected
    files = {kind: {path.name for path in tellers(kind).folder.iterdir()} for kind in sources}
    assert "network.pt2" in files["plain"] & files["waves"] & files["export"] and "network.torchscript" in files["script"]
    assert not (files["gru"] | files["factory"]) & {"network.pt2", "network.torchscript"}
    assert "vocoder.safetensors" in files["waves"] and "vocoder.safetensors" not in files["plain"]
    assert tellers("gru").made.taps == ("gru",) and tellers("script").made.taps == ()
    assert tellers("plain").made.recipe.sample.guide_at == "estimate"


def test_the_module_of_a_factory_must_be_there(tellers: Callable[[str], Spoken], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tellers("factory").folder
    monkeypatch.delitem(sys.modules, "their_words")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "their_words.py").exists()])
    with pytest.raises(BundleError, match=r"cannot import 'their_words'.*current folder or be installed"):
        Duovox.from_pretrained(folder, trust_code=True)
    assert "their_words" not in sys.modules
    monkeypatch.chdir(folder.parent)
    assert Duovox.from_pretrained(folder, trust_code=True).labels == WORDS


def test_a_factory_is_not_run_without_trust(tellers: Callable[[str], Spoken], monkeypatch: pytest.MonkeyPatch) -> None:
    import their_words  # type: ignore[import-not-found]

    monkeypatch.setattr(their_words, "build", lambda **_: pytest.fail("was run"))
    with pytest.raises(BundleError, match="trust_code"):
        Duovox.from_pretrained(tellers("factory").folder)


def test_any_bundle_takes_the_module_itself_in_place_of_trust(tellers: Callable[[str], Spoken]) -> None:
    """Its weights are the bundle's, the module given stays as it is, even one in train mode."""
    spoken = tellers("plain")
    torch.manual_seed(9)
    given = Plain().train()
    before = snapshot(given)
    voice = Duovox.from_pretrained(spoken.folder, classifier=given)
    mine, theirs = voice.bundle.model.classifier.network.network, spoken.network.state_dict()
    assert all(value.equal(theirs[name]) for name, value in mine.state_dict().items())
    assert np.allclose(voice.generate("low", seed=3, steps=2, keep_faulty=True)[0].log_mel, spoken.clip.log_mel, atol=0.05)
    assert snapshot(given) == before


@pytest.mark.parametrize("given", [Recurrent, nn.Identity, OnWaves, lambda: Plain(labels=4)])
def test_another_module_than_the_bundles_is_refused(tellers: Callable[[str], Spoken], given: Callable[[], nn.Module]) -> None:
    with pytest.raises((BundleError, ClassifierError)) as caught:
        Duovox.from_pretrained(tellers("plain").folder, classifier=given())
    one_line(caught)


def test_a_program_that_was_changed_is_not_opened(
    tellers: Callable[[str], Spoken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"network.pt2": tellers("plain"), "network.torchscript": tellers("script")}  # which opens programs, and may be done here first
    monkeypatch.setattr(torch.export, "load", lambda *_, **__: pytest.fail("was opened"))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("was opened"))
    for name, teller in made.items():
        copy = Path(shutil.copytree(teller.folder, tmp_path / name))
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        for options in ({}, {"trust_code": True}, {"classifier": teller.network}):
            with pytest.raises(BundleError) as caught:
                Duovox.from_pretrained(copy, **options)  # type: ignore[arg-type]
            one_line(caught, name, "sha256")
        (copy / name).unlink()
        for options in ({}, {"trust_code": True}, {"classifier": teller.network}):
            with pytest.raises(BundleError) as caught:
                Duovox.from_pretrained(copy, **options)  # type: ignore[arg-type]
            one_line(caught, f"{name} is missing")


def test_the_hub_is_asked_for_programs_as_well(tellers: Callable[[str], Spoken], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(source: str, allow_patterns: list[str]) -> str:
        folder = tellers(source.partition("/")[2]).folder
        left_out = [path.name for path in folder.iterdir() if not any(path.match(pattern) for pattern in allow_patterns)]
        return str(shutil.copytree(folder, tmp_path / source, ignore=lambda *_: left_out))

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    for kind in ("waves", "script"):
        assert Duovox.from_pretrained(f"somebody/{kind}", trust_code=True).labels == WORDS
