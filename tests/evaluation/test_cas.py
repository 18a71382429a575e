"""cas.py: what is learnt from clips alone, with known answers; the column it becomes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TONES, tone

from duovox.cli import main
from duovox.contracts import DataError
from duovox.evaluation.cas import AccuracyScore, CasConfig, SmallClassifier, accuracy, shifted, train
from duovox.evaluation.clips import Clips
from duovox.evaluation.judge import Judge, build_network
from duovox.evaluation.report import evaluate
from duovox.evaluation.rows import Scoring

LABELS = tuple(TONES)
QUICK = CasConfig(updates=25, batch=12, seeds=(0, 1))


def clips(each: int, voice: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tones of each label by as many voices, from a voice on: waves (N, 16000), label (N,)."""
    label = np.tile(np.arange(len(LABELS)), each)
    waves = [tone(LABELS[k], voice + i // len(LABELS), samples=16000) for i, k in enumerate(label)]
    return np.stack(waves), label


@pytest.fixture(scope="module")
def score() -> AccuracyScore:
    return AccuracyScore(*clips(10, voice=1000), labels=3, config=QUICK)


def test_clips_like_the_real_ones_teach_what_they_say(score: AccuracyScore) -> None:
    by_seed = score(*clips(6))
    assert len(by_seed) == 2 and min(by_seed) > 0.95


def test_shuffled_labels_teach_nothing(score: AccuracyScore) -> None:
    """Each tone as often under each label: a third is right by chance."""
    waves, label = clips(6)
    by_seed = score(waves, (label + np.repeat(np.arange(6) % 3, 3)) % 3)
    assert np.mean(by_seed) == pytest.approx(1 / 3, abs=0.2)


def test_wrong_labels_teach_what_is_wrong(score: AccuracyScore) -> None:
    waves, label = clips(6)
    assert max(score(waves, (label + 1) % 3)) < 0.05


def test_a_label_without_clips_is_never_said(score: AccuracyScore) -> None:
    waves, label = clips(6)
    known = label < 2
    assert score(waves[known], label[known]) == pytest.approx((2 / 3, 2 / 3), abs=0.05)


def test_clips_without_a_label_are_refused(score: AccuracyScore) -> None:
    waves, label = clips(1)
    with pytest.raises(DataError, match="CAS needs clips that all have a label; 1 of 3 have none"):
        score(waves, np.where(label == 2, -1, label))


def test_training_leaves_the_global_random_state_alone() -> None:
    mel, before = torch.rand(4, 1, 32, 32), torch.get_rng_state()
    train(mel, torch.arange(4) % 2, 2, replace(QUICK, updates=1), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_differ() -> None:
    mel, label = torch.rand(4, 1, 32, 32), torch.arange(4) % 2
    networks = [train(mel, label, 2, replace(QUICK, updates=1), seed) for seed in (0, 1, 0)]
    weights = [torch.cat([p.detach().flatten() for p in network.parameters()]) for network in networks]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])


def test_shifts_move_whole_frames_and_fill_with_silence() -> None:
    mel = torch.arange(1.0, 9.0).expand(200, 1, 2, 8)
    moved = shifted(mel, 2, torch.Generator().manual_seed(0))
    rows = {tuple(row.tolist()) for row in moved[:, 0, 0]}
    frames = [-1.0, -1.0, *range(1, 9), -1.0, -1.0]
    assert rows == {tuple(frames[start : start + 8]) for start in range(5)} and torch.equal(moved[:, 0, 0], moved[:, 0, 1])


def test_accuracy_counts_what_is_most_probable() -> None:
    class Mean(torch.nn.Module):
        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            mean = mel.mean(dim=(1, 2, 3))
            return torch.stack([-mean, mean], dim=1)

    mel = torch.tensor([-1.0, 1.0, 1.0, -1.0] * 100)[:, None, None, None].expand(-1, 1, 32, 32)
    assert accuracy(Mean(), mel, torch.tensor([0, 1, 0, 0] * 100)) == 0.75
    assert SmallClassifier(7)(mel[:2]).shape == (2, 7)


# in the report


@pytest.fixture(scope="module")
def judge_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("judges") / "judge.safetensors"
    Judge("compact", LABELS, build_network("compact", 3).state_dict()).save(path)
    return path


def test_copies_of_the_real_clips_score_as_the_real_ones(judge_file: Path, tiny_features: Path) -> None:
    from duovox.data import open_features

    features = open_features(tiny_features)
    train_clips = features.indices("train")
    copies = Clips(features.waves[train_clips] / np.float32(2**15), tuple(features.labels[i] for i in features.label[train_clips]))
    found = evaluate(Judge.load(judge_file), copies, features, Scoring(fid=False, resamples=0, cas=QUICK))
    system, real_train, real_test = found.rows
    assert system.cas == real_train.cas == np.mean(system.cas_by_seed) and system.cas_by_seed == real_train.cas_by_seed
    assert real_test.cas is None and real_test.cas_by_seed == ()
    page, low, high = found.to_markdown(), min(system.cas_by_seed), max(system.cas_by_seed)
    assert f"| {system.cas:.3f} ({low:.3f} - {high:.3f}) |" in page.splitlines()[2] and page.splitlines()[4].endswith(" - |")
    assert "CAS: mean and range of the accuracies, on all 6 real test clips" in page and "25 updates of batch 12" in page
    assert "seeds 0, 1." in page and json.loads(found.to_json())["rows"][0]["cas_by_seed"] == list(system.cas_by_seed)
    assert "CAS" not in evaluate(Judge.load(judge_file), copies, features, Scoring(fid=False, resamples=0)).to_markdown()


def test_the_command_gives_the_column_or_says_why_not(
    bundle_folder: Path,
    judge_file: Path,
    tiny_features: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[CasConfig] = []
    monkeypatch.setattr(AccuracyScore, "__call__", lambda self, waves, label: asked.append(self.config) or (0.25, 0.75))
    common = ["--data", tiny_features, "--judge", judge_file, "--no-fid", "--resamples", "0", "--n", "1", "--steps", "1", "--cas"]
    assert main(["evaluate", str(bundle_folder), *map(str, common)]) == 0
    page = capsys.readouterr().out
    assert page.splitlines()[0].endswith("| CAS (range) |") and page.count("| 0.500 (0.250 - 0.750) |") == 2
    assert asked == [CasConfig(), CasConfig()] and str(CasConfig()) in page
    assert main(["evaluate", str(bundle_folder), *map(str, common), "--unconditional", "--clips", str(tmp_path / "clips")]) == 1
    assert "CAS needs clips that all have a label, 3 of 3 have none; label them, or leave CAS out" in capsys.readouterr().err
    assert not (tmp_path / "clips").exists()
