"""runs.py: what a run folder that holds nothing is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from duovox.contracts import TrainingError
from duovox.runs import read_weights


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("classifier", "holds no trained classifier; run `duovox train classifier` with the same --out first"),
        ("subnet", "holds no trained subnet; run `duovox train subnet` with the same --out first"),
        ("original", "original holds no classifier; run `duovox repurpose` with the same --out first"),
        ("my_net", "my_net holds no trained classifier; name a run folder of `duovox train classifier`, as OUT/classifier"),
    ],
)
def test_an_empty_folder_names_the_command_that_fills_it(tmp_path: Path, name: str, says: str) -> None:
    """One that exists: there is no `duovox train original`."""
    with pytest.raises(TrainingError) as caught:
        read_weights(tmp_path / name)
    assert says in str(caught.value)
    (tmp_path / name).mkdir()
    (tmp_path / name / "weights.safetensors").write_bytes(b"broken")
    again = "run `duovox repurpose` with another --out" if name == "original" else "train this part again"
    with pytest.raises(TrainingError, match=f"cannot be read.*{again}"):
        read_weights(tmp_path / name)
