"""One order of modules, read left to right: a module imports only what stands before it."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import hac_utils

PACKAGE = Path(hac_utils.__file__).parent

#: The list. A new module needs a place here before it has walls.
ROWS = [
    "errors taxonomy paths config",
    "io schema results",
    "metrics stats variance",
    "compat pool audio soundcheck synth_sources synth_audio synth_text synth_files synth_plan synth "
    "records unpack fetch weights metadata features datasets splits",
    "encoders templates clap_model clap passt minilm catalog store batches extract distributed",
    "fitting kept networks stacked heads baselines hatr saved text_members text_systems finetune finetune_text finetune_audio systems protocol pseudo_labels ensemble",
    "ambiguity figures labels figures_ambiguity plotting overview submission_meta submission evaluation compare tables checkup",
    "report runner training cli",
]
ORDER = " ".join(ROWS).split()

#: Imported inside functions only.
HEAVY = {
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "laion_clap",
    "hear21passt",
    "timm",
    "papermill",
}

#: Modules that must work where torch is not installed.
LIGHT = [
    *" ".join(ROWS[:3]).split(),
    "datasets",
    "ambiguity",
    "plotting",
    "submission",
    "evaluation",
    "compare",
    "tables",
]

FILES = {path.stem: path for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"}


def own_imports(tree: ast.AST) -> set[str]:
    """Modules of the package that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level == 0:
                if parts[0] != "hac_utils":
                    continue
                parts = parts[1:]
            found |= {parts[0]} if parts and parts[0] else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {(a.name.split(".") + ["hac_utils"])[1] for a in node.names if a.name.split(".")[0] == "hac_utils"}
    return found - {"__version__"}


def run_time_imports(tree: ast.Module) -> set[str]:
    """Top-level package names imported while the module is loaded (not inside functions)."""
    found, waiting = set(), list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not _only_for_types(node):
            waiting += ast.iter_child_nodes(node)
    return found


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def backward_imports(name: str, tree: ast.AST) -> set[str]:
    return {other for other in own_imports(tree) if other not in ORDER[: ORDER.index(name)]}


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_every_module_has_one_place_in_the_list_and_every_place_a_module():
    assert sorted(ORDER) == sorted(set(ORDER))
    assert set(FILES) - set(ORDER) == set(), "give the new module a place in ROWS"
    assert set(ORDER) - set(FILES) == set(), "the list names modules that do not exist"
    assert [p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))] == [], "no subpackages"


@pytest.mark.parametrize("name", [n for n in ORDER if n in FILES])
def test_a_module_imports_only_what_stands_before_it(name):
    assert backward_imports(name, ast.parse(FILES[name].read_text())) == set()


@pytest.mark.parametrize(
    "line",
    [
        "from .runner import x",
        "from . import runner",
        "import hac_utils.runner",
        "from hac_utils.runner import x",
        "from hac_utils import runner",
        "def f():\n    from .runner import x",
        "class A:\n    def f(self):\n        if 1:\n            from . import runner as r",
        "try:\n    from .runner import x\nexcept ImportError:\n    pass",
    ],
)
def test_the_check_sees_an_import_of_a_later_module_wherever_it_hides(line):
    assert backward_imports("metrics", ast.parse(line)) == {"runner"}
    assert backward_imports("runner", ast.parse(line)) == {"runner"}
    assert backward_imports("cli", ast.parse(line)) == set()


def test_the_package_itself_imports_nothing():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assert own_imports(tree) == set() and run_time_imports(tree) == set()


@pytest.mark.parametrize("name", [n for n in ORDER if n in FILES])
def test_heavy_packages_are_imported_inside_functions_only(name):
    assert run_time_imports(ast.parse(FILES[name].read_text())) & HEAVY == set()


def test_the_check_for_heavy_packages_looks_into_classes_and_branches_but_not_into_functions():
    assert run_time_imports(ast.parse("class A:\n    import torch.nn")) == {"torch"}
    assert run_time_imports(ast.parse("try:\n    from torch import nn\nexcept ImportError: pass")) == {"torch"}
    assert run_time_imports(ast.parse("def f():\n    import torch")) == set()
    assert run_time_imports(ast.parse("if TYPE_CHECKING:\n    import torch")) == set()


def test_modules_stay_near_400_lines():
    long = {n: k for n, p in FILES.items() if (k := len(p.read_text().splitlines())) > 480}
    assert long == {}


def test_the_light_modules_import_without_torch_and_transformers():
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]: importlib.import_module('hac_utils.' + name)\n"
        f"print(sorted(m for m in {sorted(HEAVY)} if m in sys.modules))"
    )
    done = python("-c", code, *LIGHT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_any_module_prints_nothing_and_leaves_the_global_state_alone():
    code = textwrap.dedent("""
        import importlib, logging, os, sys
        import matplotlib as mpl, numpy as np
        import sklearn  # sets two KMP_ variables itself

        def state():
            random = np.random.get_state()[1].tolist()
            return str(mpl.rcParams), random, dict(os.environ), os.getcwd(), logging.root.handlers[:]

        before = state()
        for name in sys.argv[1:]:
            importlib.import_module("hac_utils." + name)
        assert state() == before
    """)
    done = python("-c", code, *[n for n in ORDER if n in FILES])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_hac_help_works_and_leaves_torch_out():
    hac = Path(sys.executable).parent / "hac"
    done = python("-X", "importtime", str(hac), "--help")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and done.stdout.startswith("Usage: hac ")
    assert all(f"  {command} " in done.stdout for command in ("evaluate", "run", "report"))
    assert "hac_utils.errors" in imported and imported & HEAVY == set()


def test_an_unknown_command_is_a_usage_error_without_a_traceback():
    done = python("-m", "hac_utils.cli", "nonsense")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "nonsense" in done.stderr
