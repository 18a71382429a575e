"""The report: who is compared with whom, what is refused, what is said, and a cache that is never stale."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duovox.config import MelConfig
from duovox.contracts import DataError, LabelError
from duovox.data import Features, Statistics, narrowed, open_features, prepare
from duovox.evaluation import reference
from duovox.evaluation.clips import Clips
from duovox.evaluation.judge import Judge, Scores, build_network
from duovox.evaluation.quality import Quality
from duovox.evaluation.reference import reference_scores
from duovox.evaluation.report import Report, draw, evaluate_folder, label_mix
from duovox.evaluation.report import evaluate as evaluate_in_full
from duovox.evaluation.rows import Row, Scoring
from duovox.sound.audio import write_audio

LABELS = ("low", "middle", "high")
PITCHES = (200, 800, 3200)


def evaluate(judge: Judge, clips: Clips, features: Features, cache: Path | None = None, **options: Any) -> Report:
    """With few resamples; `options` are those of `Scoring`."""
    return evaluate_in_full(judge, clips, features, Scoring(**{"resamples": 2, **options}), cache=cache)


def tones(label: np.ndarray, seed: int = 0) -> np.ndarray:
    """Noisy tones of a label's pitch, (N, 4000)."""
    rng, time = np.random.default_rng(seed), np.arange(4000) / 16000
    pitch = np.array(PITCHES)[label, None] * rng.uniform(0.8, 1.2, (len(label), 1))
    return (0.3 * np.sin(2 * np.pi * pitch * time) + rng.normal(0, 0.01, (len(label), 4000))).astype(np.float32)


def some_features(each: int = 8, labels: tuple[str, ...] = LABELS, digest: str = "d") -> Features:
    """A feature folder in memory: `each` clips per label and split."""
    label = np.tile(np.repeat(np.arange(3), each), 3)
    waves = (tones(label) * 32767).astype(np.int16)
    names = tuple(map(str, range(len(label))))
    split = np.repeat(["train", "validation", "test"], 3 * each)
    mels = np.zeros((len(label), 1, 1), np.float16)
    return Features(labels, MelConfig(), mels, waves, label, split, names, names, Statistics(0, 1, 0, 1), digest)


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(1)
    return Judge("compact", LABELS, build_network("compact", 3).state_dict())


@pytest.fixture(scope="module")
def features() -> Features:
    return some_features()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reference")


def clips_of_test(features: Features) -> Clips:
    index = features.indices("test")
    return Clips(features.waves[index].astype(np.float32) / 32768, tuple(LABELS[i] for i in features.label[index]))


def test_real_test_clips_get_the_real_test_row(judge: Judge, features: Features, cache: Path) -> None:
    found = evaluate(judge, clips_of_test(features), features, fid=False, cache=cache)
    system, train, test = found.rows
    assert [row.system for row in found.rows] == ["system", "real train", "real test"]
    assert {row.n for row in found.rows} == {24}
    assert dataclasses.replace(system, system="real test") == test
    assert sum(test.histogram.values()) == 24
    assert test.nearest_train > 0 and train.nearest_train > 0, "a train clip is not its own neighbour"


def test_fid_and_the_page(judge: Judge) -> None:
    features = some_features(each=43)
    found = evaluate(judge, clips_of_test(features), features, command="duovox evaluate x")
    for row in found.rows:
        assert row.fid is not None and row.fid >= 0
    assert found.rows[1].fid == pytest.approx(0, abs=1e-6), "all train clips against all train clips"
    page, data = found.to_markdown(), json.loads(found.to_json())
    assert "| system | 129 |" in page and "| real train | 129 |" in page and judge.digest[:16] in page and "`duovox evaluate x`" in page
    assert data["judge_digest"] == judge.digest and data["rows"][0]["n"] == 129 and data["versions"]["torch"] == torch.__version__


def test_too_few_clips_for_fid(judge: Judge, features: Features, cache: Path) -> None:
    with pytest.raises(DataError, match="FID with this judge needs at least 129 clips, got 24"):
        evaluate(judge, clips_of_test(features), features, cache=cache)
    with pytest.raises(DataError, match="at least 2 clips are needed, got 1"):
        evaluate(judge, clips_of_test(features), features, limit=1, fid=False, cache=cache)
    assert "| real test | 12 | - |" in evaluate(judge, clips_of_test(features), features, limit=12, fid=False, cache=cache).to_markdown()


def test_unlabelled_clips_have_no_accuracy(judge: Judge, features: Features, cache: Path) -> None:
    clips = clips_of_test(features)
    none = evaluate(judge, Clips(clips.waves, (None,) * 24), features, fid=False, cache=cache).rows[0]
    assert none.accuracy is None and none.accuracy_interval is None and none.confusion == {} and none.accuracy_by_label == {}
    some = evaluate(judge, Clips(clips.waves, (*clips.labels[:16], *(None,) * 8)), features, fid=False, cache=cache)
    assert some.rows[0].accuracy is not None
    assert some.notes == ("8 clips have no label, accuracy is that of the others",)


def test_unknown_speakers_are_noted_beside_the_figures(judge: Judge, features: Features, cache: Path) -> None:
    unknown = dataclasses.replace(features, speaker_note="the speakers are unknown and the split is by clip")
    found = evaluate(judge, clips_of_test(features), unknown, fid=False, cache=cache)
    assert "Note: real recordings: the speakers are unknown and the split is by clip." in found.to_markdown()
    assert evaluate(judge, clips_of_test(features), features, fid=False, cache=cache).notes == ()


def test_a_judge_trained_on_other_labels_is_refused(judge: Judge, features: Features, cache: Path) -> None:
    with pytest.raises(LabelError, match="not trained on treble"):
        evaluate(judge, clips_of_test(features), some_features(labels=("low", "middle", "treble")), fid=False, cache=cache)
    clips = clips_of_test(features)
    with pytest.raises(LabelError, match="not trained on seven"):
        evaluate(judge, Clips(clips.waves, (*clips.labels[:-1], "seven")), features, fid=False, cache=cache)


def test_labels_in_another_order_are_the_same_labels(judge: Judge, features: Features, cache: Path) -> None:
    renamed = dataclasses.replace(features, labels=LABELS[::-1], label=2 - features.label)
    one, other = (evaluate(judge, clips_of_test(features), f, fid=False, cache=cache).rows[2] for f in (features, renamed))
    assert one == other


def test_real_rows_have_the_mix_of_the_clips() -> None:
    train = np.repeat([0, 1, 2], [50, 30, 20])
    assert label_mix(np.array([2, 2, 0]), train, 3).tolist() == [1, 0, 2]
    assert label_mix(np.full(7, -1), train, 3).tolist() == [4, 2, 1]
    picked = draw(train, np.array([3, 0, 25]), np.random.default_rng(0))
    assert np.bincount(train[picked]).tolist() == [3, 0, 20] and len(set(picked)) == 23


def test_the_reference_is_computed_once_and_never_stale(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = some_features(each=4)
    first = reference_scores(judge, features, "test", tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(reference, "_score_indices", lambda *_: pytest.fail("scored again"))
        assert np.array_equal(reference_scores(judge, features, "test", tmp_path).features, first.features)
        for other in (dataclasses.replace(features, digest="e"), features):
            with pytest.raises(pytest.fail.Exception):
                reference_scores(judge, other, "test" if other is not features else "train", tmp_path)
    next(tmp_path.iterdir()).write_bytes(b"broken")
    assert np.array_equal(reference_scores(judge, features, "test", tmp_path).features, first.features)
    blocked = tmp_path / "file"
    blocked.write_text("")
    reference_scores(judge, features, "test", blocked)


def test_features_of_another_rate_or_without_a_split_are_refused(judge: Judge, features: Features) -> None:
    with pytest.raises(DataError, match="hears 16000 Hz"):
        reference_scores(judge, dataclasses.replace(features, mel=MelConfig(sample_rate=22050)), "test")
    with pytest.raises(DataError, match="the test split of these features has 0 clips"):
        reference_scores(judge, dataclasses.replace(features, split=np.full(72, "train")), "test")


def test_a_folder_is_evaluated_from_files_alone(judge: Judge, tmp_path: Path) -> None:
    label = np.arange(24) % 3
    for number, wave in enumerate(tones(label)):
        write_audio(tmp_path / "words" / LABELS[label[number]] / f"{number}_nohash_0.wav", wave, 16000, parents=True)
    prepare(tmp_path / "words", tmp_path / "features", progress=False)
    judge.save(tmp_path / "judge.safetensors")
    found = evaluate_folder(tmp_path / "words", tmp_path / "judge.safetensors", tmp_path / "features", Scoring(fid=False))
    assert found.rows[0].n == 24 and found.rows[0].system == "words" and found.judge_digest == judge.digest
    assert len(list((tmp_path / "features" / "reference").iterdir())) == 2
    known = narrowed(open_features(tmp_path / "features"), LABELS[1:])
    with pytest.raises(DataError, match=f"system has clips of {LABELS[0]}, the train split of high, middle; give data"):
        evaluate_in_full(judge, Clips(tones(np.zeros(4, int)), (LABELS[0],) * 4), known, Scoring(fid=False))


class QuickJudge(Judge):
    """Hears the pitch in zero crossings; four features."""

    def __init__(self) -> None:
        self.kind, self.labels, self.digest = "compact", LABELS, "0" * 64

    def score(self, waves, batch: int = 64) -> Scores:  # type: ignore[no-untyped-def, override]
        x = np.asarray(waves, np.float64)
        x = x / np.abs(x).max(axis=1, keepdims=True)
        crossings = (np.diff(np.sign(x[:, :4000]), axis=1) != 0).mean(axis=1)
        distances = np.abs(np.log(crossings[:, None] + 1e-3) - np.log(np.array(PITCHES) / 8000 + 1e-3))
        p = np.exp(-5 * distances) / np.exp(-5 * distances).sum(axis=1, keepdims=True)
        features = np.stack([crossings, *x[:, :3].T], axis=1)
        return Scores(p.astype(np.float32), features.astype(np.float32))


def loudness(waves: np.ndarray) -> np.ndarray:
    return np.abs(waves).max(axis=1).astype(np.float64)


def test_every_figure_has_its_interval_and_quality_its_column() -> None:
    features = some_features(each=84)
    quality = Quality("loudness", "the peak", loudness)
    found = evaluate(QuickJudge(), clips_of_test(features), features, quality=quality, resamples=40)
    system = found.rows[0]
    for low, high in (system.inception_interval, system.modified_inception_interval, system.am_interval, system.quality_interval):
        assert low < high
    assert system.inception_interval[0] < system.inception < system.inception_interval[1]
    assert system.quality == pytest.approx(loudness(clips_of_test(features).waves).mean())
    assert system.accuracy_interval is not None and system.accuracy_interval[1] - system.accuracy_interval[0] > 0.01
    assert system.fid_deviation is not None and system.fid_deviation > 0
    assert system.ndb is not None and 0 <= system.ndb <= 0.3 and found.rows[1].ndb == 0, "all train clips against all train clips"
    page, data = found.to_markdown(), json.loads(found.to_json())
    head, line, first = page.splitlines()[:3]
    assert head.count("|") == line.count("|") == first.count("|") == 13 and head.endswith("| loudness (95 %) |")
    assert "loudness: the peak." in page and f"± {system.fid_deviation:.3f}" in first and data["rows"][0]["ndb"] == system.ndb
    again = evaluate(QuickJudge(), clips_of_test(features), features, quality=quality, resamples=40)
    assert again.rows == found.rows


def test_a_repeated_clip_fills_other_bins_than_real_clips_do() -> None:
    features = some_features(each=84)
    clips = clips_of_test(features)
    stuck = Clips(np.repeat(clips.waves[:1], 252, axis=0), (LABELS[0],) * 252)
    assert evaluate(QuickJudge(), stuck, features).rows[0].ndb > 3 * evaluate(QuickJudge(), clips, features).rows[0].ndb


def test_figures_that_cannot_be_had_are_left_out() -> None:
    features = some_features(each=3)
    row: Row = evaluate(QuickJudge(), clips_of_test(features), features, resamples=0).rows[0]
    assert row.ndb is None and row.quality is None and row.inception_interval is None and row.am_interval is None
    assert row.fid is not None and row.fid_deviation is None, "nine clips are enough for four features, half of them are not"
    assert row.accuracy_interval is not None
    few = evaluate(QuickJudge(), clips_of_test(features), features, quality=Quality("loudness", "", loudness)).rows[0]
    assert few.inception_interval is None and few.am_interval is None and few.quality_interval is not None
