"""Who may import whom (docs: design, section 1), read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import qspinn

ROOT = Path(qspinn.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
NAMES = {p: ".".join(("qspinn", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__") for p in SOURCES}
MODULES = set(NAMES.values())
TREES = {p: ast.parse(p.read_text()) for p in SOURCES}
HEAVY = {"torch", "numba", "plotly", "optuna", "sklearn", "jinja2", "typer", "rich", "hypothesis"}


def imports(path: Path) -> set[str]:
    """Everything a module imports, anywhere in it: `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{NAMES[path]}: relative import"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, *packages: str) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in packages)


GROUND = "errors records arrays files fixedpoint optional spikes former"
MAY_USE = {
    "errors": "",
    "former": "",
    "records": "errors former",
    "arrays": "errors",
    "files": "errors records",
    "fixedpoint": "arrays errors records",
    "optional": "errors",
    "spikes": "arrays errors",
    "networks": GROUND,
    "program": GROUND,
    "compiled": GROUND,
    "data": f"{GROUND} program compiled",
    "runtime": f"{GROUND} program compiled",
    "quantization": f"{GROUND} networks program runtime",
    "memory": f"{GROUND} networks program quantization",
    "learning": f"{GROUND} networks program compiled data runtime quantization memory",
    "importers": f"{GROUND} networks program data runtime quantization",
    "exploration": f"{GROUND} networks program compiled data runtime quantization memory learning",
    "report": f"{GROUND} networks program quantization memory learning exploration",
    "workflow": f"{GROUND} importers networks program data runtime quantization memory learning exploration",
    "testing": f"{GROUND} program runtime",
    "cli": f"{GROUND} program data memory learning exploration workflow",
    "__main__": "cli",
    "": "former optional",
}
"""Room at the root of the package -> the rooms that it may import from; a stage uses earlier stages only."""
MOST_FLOORS, MOST_ROOMS = 11, 22


def room(name: str) -> str:
    """The file or folder at the root of the package that a module lies in; "" is the package's own file."""
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("path", SOURCES, ids=NAMES.get)
def test_a_stage_uses_earlier_stages_only(path: Path) -> None:
    name = NAMES[path]
    rooms = {
        room(u) for u in imports(path) if within(u, "qspinn") and (u in MODULES or u.rpartition(".")[0] in MODULES)
    }
    rooms = {r for r in rooms if r in MAY_USE} - {room(name), ""}
    assert rooms <= set(MAY_USE[room(name)].split()), (
        f"{name} may not import {rooms - set(MAY_USE[room(name)].split())}"
    )
    if name in ("qspinn.fixedpoint", "qspinn.exploration.pareto"):
        others = {u.split(".")[0] for u in imports(path)} - set(sys.stdlib_module_names) - {"numpy", "qspinn"}
        assert others <= ({"msgspec"} if name == "qspinn.fixedpoint" else set())


def test_the_plan_has_no_circle_and_few_floors() -> None:
    assert {room(name) for name in MODULES} == set(MAY_USE)
    floors: dict[str, int] = {}

    def floor(r: str, above: tuple[str, ...] = ()) -> int:
        assert r not in above, (*above, r)
        if r not in floors:
            floors[r] = 1 + max((floor(other, (*above, r)) for other in MAY_USE[r].split()), default=0)
        return floors[r]

    rooms = set(MAY_USE) - {"", "__main__"}  # the package's own file, and its way to the command line
    assert max(floor(r) for r in rooms) <= MOST_FLOORS, floors
    assert len(rooms) <= MOST_ROOMS, len(rooms)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES.get)
def test_nothing_that_runs_foreign_code(path: Path) -> None:
    used = {u.split(".")[0] for u in imports(path)}
    assert not used & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "torch.load", "os.system"), called
            assert not any(k.arg in ("allow_pickle", "shell") for k in node.keywords), called


def test_importing_the_package_is_light() -> None:
    code = f"import sys, qspinn; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves() -> None:
    assert all(getattr(qspinn, name) is not None for name in qspinn.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        qspinn.nonsense  # noqa: B018
