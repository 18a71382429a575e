"""ARCHITECTURE.md says who may import whom; here every import of every module is held against its table."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "duovox"
OUTSIDE_THE_TABLE = ("__init__.py", "__main__.py")
CROSS = {"training", "evaluation"}


def table_rows() -> dict[str, int]:
    """Module path -> row, from the table of ARCHITECTURE.md; a module named twice fails."""
    rows: dict[str, int] = {}
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"\| (\d+) \| (.+) \|", line)
        for name in match[2].split() if match else ():
            assert name not in rows, f"ARCHITECTURE.md names {name} twice"
            rows[name] = int(match[1])  # type: ignore[index]
    return rows


def module_file(dotted: str) -> str | None:
    """duovox.a.b -> "a/b.py" or "a/b/__init__.py", whichever exists."""
    base = "/".join(dotted.split(".")[1:])
    candidates = [f"{base}.py", f"{base}/__init__.py"] if base else ["__init__.py"]
    return next((c for c in candidates if (SOURCE / c).is_file()), None)


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import at any depth, but for what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from statements(other)
        else:
            yield from statements(child)


def imported_names(file: str, text: str | None = None) -> set[str]:
    """Dotted names a module imports; `from duovox import a` gives duovox.a where that is a module, else duovox."""
    names: set[str] = set()
    for statement in statements(ast.parse(text if text is not None else (SOURCE / file).read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
            continue
        assert statement.level == 0 and statement.module, f"{file}:{statement.lineno}: relative import"
        whole = {f"{statement.module}.{alias.name}" for alias in statement.names}
        names |= {name if name.startswith("duovox.") and module_file(name) else statement.module for name in whole}
    return names


def own_imports(file: str) -> set[str]:
    """Files of duovox that a module imports."""
    names = {name for name in imported_names(file) if name.split(".")[0] == "duovox"}
    files = {module_file(name) for name in names}
    assert None not in files, f"{file} imports a module that does not exist: {names}"
    return {f for f in files if f}


ROWS = table_rows()
MODULES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))
NAMED = [module for module in MODULES if not module.endswith(OUTSIDE_THE_TABLE)]


def row_of(file: str) -> int:
    """A module's row; a package stands as low as the lowest module it re-exports."""
    if file in ROWS:
        return ROWS[file]
    return max((row_of(other) for other in own_imports(file)), default=0)


def test_the_table_is_found() -> None:
    assert ROWS["contracts.py"] == 1
    assert ROWS["cli.py"] == max(ROWS.values())


def test_every_module_is_named() -> None:
    assert set(NAMED) - set(ROWS) == set()


def test_every_named_module_exists() -> None:
    assert set(ROWS) - set(NAMED) == set()


@pytest.mark.parametrize("module", NAMED)
def test_imports_only_from_its_row_or_above(module: str) -> None:
    allowed = ROWS[module]
    wrong = {other: row_of(other) for other in own_imports(module) if row_of(other) > allowed}
    assert not wrong, f"{module} stands in row {allowed}, but imports from below: {wrong}"


def test_no_module_imports_itself_in_a_circle() -> None:
    TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()


def test_the_entry_point_imports_the_command_line_alone() -> None:
    assert own_imports("__main__.py") == {"cli.py"}


@pytest.mark.parametrize("module", ["sound/mel.py", *(name for name in NAMED if name.startswith("diffusion/"))])
def test_the_mathematics_knows_no_model_no_sound_and_no_files(module: str) -> None:
    assert all(file in ("contracts.py", "config/__init__.py") or file.startswith("diffusion/") for file in own_imports(module))
    outside = {name.split(".")[0] for name in imported_names(module)} - {"duovox"}
    assert outside <= {"__future__", "collections", "contextlib", "dataclasses", "functools", "itertools", "math", "torch", "typing"}


def test_no_other_room_asks_whose_classifier_it_is() -> None:
    """What differs between ours and someone else's is said by `TappedClassifier`, not asked of its class."""
    asking = re.compile(r"isinstance\([^)]*(ExternalClassifier|EncoderClassifier)")
    found = [module for module in MODULES if asking.search((SOURCE / module).read_text(encoding="utf-8"))]
    assert [module for module in found if not module.startswith("classifiers/")] == []


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_too_long_to_read(module: str) -> None:
    assert len((SOURCE / module).read_text(encoding="utf-8").splitlines()) <= 400


def test_training_and_evaluation_know_of_each_other_the_judge_alone() -> None:
    """A judge is trained in `training` and judges in `evaluation`; experiments, which need both, stand below them."""
    rooms = {module: own_imports(module) for module in NAMED if module.startswith(("training/", "evaluation/"))}
    crossing = {
        (module, other) for module, files in rooms.items() for other in files if {module.split("/")[0], other.split("/")[0]} == CROSS
    }
    assert crossing == {("training/judge.py", "evaluation/judge.py")}


def test_the_public_object_loads_no_trainer_and_no_judge() -> None:
    """In a fresh interpreter: who speaks and listens needs neither trainings nor evaluation."""
    code = "import sys; from duovox import Duovox; print(*(name for name in sys.modules if name.startswith('duovox.')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in result.stdout.split()}
    assert "voice" in rooms and not rooms & {"training", "evaluation", "experiments", "repurposing", "serve", "commands"}
    assert "duovox.sound.vocoder.discriminators" not in result.stdout.split()


def test_the_package_lists_its_public_names_and_no_others() -> None:
    import duovox

    assert dir(duovox) == sorted(duovox.__all__) and all(getattr(duovox, name) is not None for name in dir(duovox))


@pytest.mark.parametrize("module", ["contracts", "config", "cli"])
def test_settings_and_help_load_without_torch(module: str) -> None:
    """In a fresh interpreter, so that what these modules import in turn counts too."""
    heavy = "{'torch', 'numpy', 'soundfile', 'tqdm'}"
    code = f"import sys, duovox.{module}; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_reader_of_imports_sees_functions_but_not_type_checking() -> None:
    text = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from duovox.voice import Duovox
def late():
    from duovox import model
    import duovox.bundle
"""
    assert imported_names("example.py", text) == {"typing", "duovox.model", "duovox.bundle"}
