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


@pytest.mark.parametrize("path", SOURCES, ids=NAMES.get)
def test_import_rules(path: Path) -> None:
    name, used = NAMES[path], imports(path)
    mine = {u for u in used if within(u, "qspinn")}
    for top in ("cli", "interop", "testing", "report"):
        allowed = (f"qspinn.{top}", {"report": "qspinn.cli", "cli": "qspinn.__main__"}.get(top, f"qspinn.{top}"))
        assert within(name, *allowed) or not any(within(u, f"qspinn.{top}") for u in mine), f"imports {top}"
    if within(name, "qspinn.runtime", "qspinn.export"):
        assert not any(within(u, *(f"qspinn.{m}" for m in ("network", "plan", "lower", "explore"))) for u in mine)
    if name in ("qspinn.fixedpoint", "qspinn.exploration.pareto"):
        others = {u.split(".")[0] for u in used} - set(sys.stdlib_module_names) - {"numpy", "qspinn"}
        assert others <= ({"msgspec"} if name == "qspinn.fixedpoint" else set())
        assert all(within(u, "qspinn.errors", "qspinn.arrays") for u in mine)


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
