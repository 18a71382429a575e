"""serve/api.py, guides: what was given at the start can be asked for by name, and a clip is the library's; nothing else is opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TONES
from serving import generate, refusal, serving, wave_of
from starlette.testclient import TestClient

from duovox import Duovox
from duovox.bundle import Bundle
from duovox.repurposing import make_own_guide


@pytest.fixture(scope="module")
def voice(tiny_bundle: Bundle, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Duovox:
    """One with a guide `words`."""
    voice = Duovox(tiny_bundle)
    voice.add_guide(make_own_guide(bundle_folder).write(tmp_path_factory.mktemp("guides") / "words"))
    return voice


@pytest.fixture(scope="module")
def client(voice: Duovox) -> Iterator[TestClient]:
    with serving(voice) as client:
        yield client


def test_the_model_lists_its_guides(client: TestClient, voice: Duovox) -> None:
    model = client.get("/v1/model").json()
    (offer,) = model["guides"]
    assert offer == {"name": "words", "labels": list(TONES), "gamma": 10.0, "ways": ["through"], "digest": voice.guides["words"].digest}
    assert (model["limits"]["guides"], model["limits"]["guide_gamma"]) == (16, 100.0)


def test_a_steered_clip_is_the_librarys(client: TestClient, voice: Duovox) -> None:
    asked: Any = [{"name": "words", "target": "HIGH", "gamma": 2}, {"name": "own", "target": {"mid": -1.0}, "gamma": 0.5}]
    reply = generate(client, label="low", n=2, seed=5, guides=asked, keep_faulty=True)
    guides = [voice.guide("words", "high", gamma=2), voice.guide("own", {"mid": -1}, gamma=0.5)]
    expected = voice.generate("low", 2, seed=5, guides=guides, keep_faulty=True)
    plain = voice.generate("low", 2, seed=5, keep_faulty=True)
    for clip, wanted, without in zip(reply["clips"], expected, plain, strict=True):
        assert np.abs(wave_of(clip) - np.clip(wanted.wave, -1, 1)).max() < 1e-3
        assert np.abs(wanted.wave - without.wave).max() > 2e-3
    assert [(one["name"], one["target"], one["gamma"]) for one in reply["guides"]] == [
        ("words", {"high": 1.0}, 2.0),
        ("own", {"mid": -1.0}, 0.5),
    ]
    assert reply["command"] == "duovox generate low --n 2 --seed 5 --guide words-high:2 own-mid=-1:0.5 --keep-faulty --bundle tiny"
    assert reply["python"].splitlines()[2:] == [
        "voice = Duovox.from_pretrained('tiny')",
        "clips = voice.generate('low', n=2, seed=5, keep_faulty=True, "
        "guides=[voice.guide('words', 'high', gamma=2.0), voice.guide('own', {'mid': -1.0}, gamma=0.5)])",
    ]


def test_a_guide_at_the_estimate_is_offered_both_ways_its_own_first(tiny_bundle: Bundle) -> None:
    voice = Duovox(tiny_bundle)
    joined = voice.add_guide("loudness")
    voice.guides["straight"] = replace(joined, name="straight", strength=replace(joined.strength, way="straight"))
    with serving(voice) as client:
        offers = client.get("/v1/model").json()["guides"]
    assert {offer["name"]: offer["ways"] for offer in offers} == {"loudness": ["through", "straight"], "straight": ["straight", "through"]}


def test_a_request_may_choose_the_way(client: TestClient, voice: Duovox) -> None:
    (foreign,) = (voice.guides["words"],)
    asked: Any = [{"name": foreign.name, "target": "high", "gamma": 2, "way": "straight"}]
    refused = client.post("/v1/generate", json={"label": "low", "guides": asked})
    assert refused.status_code == 422 and "guide.way straight is for guides at the estimate" in refused.text
    asked[0]["way"] = "through"
    reply = generate(client, label="low", guides=asked, keep_faulty=True)
    assert reply["guides"][0]["way"] == "through"
    assert "--guide words-high:2:through" in reply["command"] and "gamma=2.0, way='through')" in reply["python"]


def test_a_request_may_say_among_how_many_noises_a_guide_chooses(client: TestClient, voice: Duovox) -> None:
    asked: Any = [{"name": "words", "target": "high", "gamma": 2, "candidates": 4}]
    reply = generate(client, label="low", seed=5, guides=asked, keep_faulty=True)
    (wanted,) = voice.generate("low", seed=5, guides=[voice.guide("words", "high", gamma=2, candidates=4)], keep_faulty=True)
    assert np.abs(wave_of(reply["clips"][0]) - np.clip(wanted.wave, -1, 1)).max() < 1e-3
    assert reply["guides"][0]["candidates"] == 4
    assert "--guide words-high:2:best-of-4" in reply["command"] and "gamma=2.0, candidates=4)" in reply["python"]
    asked[0]["candidates"] = 65
    assert client.post("/v1/generate", json={"label": "low", "guides": asked}).status_code == 422


def test_clips_that_are_steered_otherwise_never_share_a_batch(voice: Duovox) -> None:
    from duovox.serve.tasks import Speak

    def task(*guides: Any) -> Speak:
        return Speak(voice.settings(), "neural", True, False, guides)

    assert task(voice.guide("words", "high")) == task(voice.guide("words", "high"))
    others = [
        task(),
        task(voice.guide("words", "low")),
        task(voice.guide("words", "high", gamma=3)),
        task(voice.guide("own", "high", gamma=10)),
    ]
    assert all(task(voice.guide("words", "high")) != other for other in others)


@pytest.mark.parametrize(
    ("guides", "said"),
    [
        ([{"name": "speaker", "target": "ann"}], "this server has no guide 'speaker'; it has words, own"),
        ([{"name": "../words", "target": "high"}], "this server has no guide '../words'"),
        ([{"name": "words", "target": "hihg"}], "the guide words: unknown label 'hihg'; the nearest: high"),
        ([{"name": "words", "target": {}}], "must have a weight that is not 0"),
        ([{"name": "words", "target": "high"}, {"name": "words", "target": "high", "gamma": 2}], "is given twice"),
        ([{"name": "words", "target": "high", "gamma": -1}], "guides.0.gamma"),
        ([{"name": "words", "target": "high", "gamma": 1000}], "guides.0.gamma"),
        ([{"name": "words", "target": "high", "cap": 1}], "guides.0.cap"),
        ([{"name": "words"}], "guides.0.target"),
        ([{"name": "words", "target": f"high{n}"} for n in range(17)], "guides: List should have at most 16 items"),
    ],
)
def test_guides_that_cannot_be_asked_for(client: TestClient, guides: Any, said: str) -> None:
    status, _, message = refusal(client.post("/v1/generate", json={"label": "low", "guides": guides}))
    assert status == 422 and said in message


def test_a_path_is_never_opened(client: TestClient, voice: Duovox, bundle_folder: Path, tmp_path: Path) -> None:
    secret = make_own_guide(bundle_folder).write(tmp_path / "secret")
    status, _, message = refusal(
        client.post("/v1/generate", json={"label": "low", "guides": [{"name": str(secret)[-100:], "target": "high"}]})
    )
    assert status == 422 and "has no guide" in message
