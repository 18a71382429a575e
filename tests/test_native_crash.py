"""A test that kills its process fails by name, and the rest of the suite goes on; also what the pass for other processors relies on."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import conftest
import pytest

TESTS = """
import os
def test_before(): pass
def test_dies(): os.abort()
def test_after(): pass
"""


def test_a_test_that_kills_its_process_is_named_and_the_others_run(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = .\naddopts = -q\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(f"import pytest\n{inspect.getsource(conftest.pytest_cmdline_main)}")
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**outer, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # starts at once
    words = [sys.executable, "-m", "pytest", "-p", "xdist.plugin"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 1
    assert "crashed while running" in done.stdout and "FAILED test_some.py::test_dies" in done.stdout
    assert "1 failed, 2 passed" in done.stdout
    assert "Fatal Python error: Aborted" in done.stderr and "test_some.py" in done.stderr, "where it died"


@pytest.mark.skipif("ONEDNN_MAX_CPU_ISA" not in os.environ, reason="only in the pass for other processors (.ci/run)")
def test_the_kernels_are_those_that_were_asked_for() -> None:
    """oneDNN and ATen say what they would use; oneDNN caps what it finds, and silently ignores a name it does not know."""
    wanted = os.environ["ONEDNN_MAX_CPU_ISA"].lower()
    code = "import torch; print(torch.backends.cpu.get_cpu_capability()); torch.nn.Conv2d(8, 8, 3)(torch.ones(8, 8, 16, 16))"
    environment = {**os.environ, "ONEDNN_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    convolutions = [line.split(",") for line in done.stdout.splitlines() if "exec,cpu,convolution" in line]
    assert convolutions and all(f":{wanted}" in ",".join(line) for line in convolutions), done.stdout
    assert os.environ["ATEN_CPU_CAPABILITY"].upper() in done.stdout.splitlines()
