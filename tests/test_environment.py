"""One environment: pyproject.toml, requirements.lock, environment.yml, Makefile and the notebooks agree."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from hac_utils.runner import NOTEBOOKS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK_LINES = [
    line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
]
PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;#]+)(?P<comment>  # .*)?")
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def pins() -> list[tuple[str, Version]]:
    matches = [PIN.fullmatch(line) for line in LOCK_LINES]
    return [(canonicalize_name(m["name"]), Version(m["version"])) for m in matches if m]


def requirements(extra: str = "") -> list[Requirement]:
    """Requirements of the core or of an extra; an extra that names extras of this project is followed."""
    out = []
    for line in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == canonicalize_name(PROJECT["name"]):
            out += [r for inner in sorted(requirement.extras) for r in requirements(inner)]
        else:
            out.append(requirement)
    return out


EXTRAS = [e for e in PROJECT["optional-dependencies"] if e != "dist"]


# lock --------------------------------------------------------------------------------------------


def test_every_line_of_the_lock_is_one_exact_version():
    assert [line for line in LOCK_LINES if not PIN.fullmatch(line)] == []
    names = [name for name, _ in pins()]
    assert len(names) == len(set(names)) > 100


@pytest.mark.parametrize("extra", ["", *EXTRAS], ids=lambda e: e or "core")
def test_every_requirement_is_met_by_exactly_one_pin(extra):
    wanted = requirements(extra)
    assert wanted
    for requirement in wanted:
        found = [v for name, v in pins() if name == canonicalize_name(requirement.name)]
        assert len(found) == 1, requirement
        assert requirement.specifier.contains(found[0].public, prereleases=True), (
            f"{requirement} but {found[0]} in the lock"
        )


def test_the_extra_all_holds_every_extra_but_dist():
    (everything,) = [Requirement(r) for r in PROJECT["optional-dependencies"]["all"]]
    assert everything.extras == set(EXTRAS) - {"all"}
    assert {r.name for r in requirements("all")} == {r.name for e in EXTRAS for r in requirements(e)}


def test_the_lock_has_no_ray_numpy_below_2_and_pyarrow_below_26():
    lock = dict(pins())
    assert "ray" not in lock
    assert lock["numpy"] < Version("2") and lock["pyarrow"] < Version("26")
    assert [n for n in lock if n.startswith("nvidia") or n == "triton"] == []


def test_torch_is_one_line_the_cpu_build_and_says_how_to_get_the_gpu_build():
    (line,) = [x for x in LOCK_LINES if re.match(r"torch\b(?![a-z_-])", x)]
    match = re.fullmatch(
        r"torch==(\d+\.\d+\.\d+)\+cpu  # CPU build\. GPU: change this one line to torch==(\d+\.\d+\.\d+)",
        line,
    )
    assert match and match[1] == match[2]


def test_the_installed_packages_are_those_of_the_lock():
    installed = {canonicalize_name(d.metadata["Name"]): Version(d.version) for d in importlib.metadata.distributions()}
    tools = {"pip", "setuptools", "wheel", "uv", canonicalize_name(PROJECT["name"])}
    assert {n: (v, installed.get(n)) for n, v in pins() if installed.get(n) != v} == {}
    assert set(installed) - dict(pins()).keys() - tools == set()


# environment.yml, Python, version ----------------------------------------------------------------


def conda_pins() -> dict[str, str]:
    return dict((x.split("=", 1) + [""])[:2] for x in ENVIRONMENT["dependencies"] if isinstance(x, str))


def test_the_python_of_conda_is_one_that_the_project_accepts():
    python = conda_pins()["python"].lstrip("=")
    assert re.fullmatch(r"\d+\.\d+", python)
    accepted = SpecifierSet(PROJECT["requires-python"])
    assert accepted.contains(python) and accepted.contains(".".join(map(str, sys.version_info[:3])))


def test_environment_yml_takes_its_python_packages_from_the_lock_alone():
    (pip,) = [x["pip"] for x in ENVIRONMENT["dependencies"] if isinstance(x, dict)]
    assert pip.count("-r requirements.lock") == 1
    assert [line for line in pip if not line.startswith("-")] == [], "versions belong in requirements.lock"
    names = {canonicalize_name(n) for n, _ in pins()}
    assert set(conda_pins()) & names == set()
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    assert any("download.pytorch.org/whl/cpu" in line for line in pip)


def test_every_pip_line_of_environment_yml_is_legal_in_a_requirements_file():
    """conda writes these lines to a file for ``pip install -r``, which knows few options."""
    legal = (
        "-r",
        "-e",
        "-c",
        "-i",
        "--index-url",
        "--extra-index-url",
        "--find-links",
        "--no-index",
        "--prefer-binary",
    )
    (pip,) = [x["pip"] for x in ENVIRONMENT["dependencies"] if isinstance(x, dict)]
    assert [line for line in pip if line.split()[0] not in legal] == []


def test_the_version_of_the_package_is_that_of_the_project():
    import hac_utils

    assert hac_utils.__version__ == PROJECT["version"] == importlib.metadata.version(PROJECT["name"])


# Makefile and notebooks --------------------------------------------------------------------------


def test_the_arrows_of_the_makefile_are_those_of_the_runner():
    (listed,) = re.findall(r"^NOTEBOOKS := (.*)$", MAKEFILE, re.M)
    assert listed.split() == list(NOTEBOOKS) == [b.stem for b in BOOKS]
    arrows = {name: () for name in NOTEBOOKS}
    for target, sources in re.findall(r"^\$\(M\)/(\w+)\.json: ((?:\$\(M\)/\w+\.json ?)+)$", MAKEFILE, re.M):
        arrows[target] += tuple(re.findall(r"\$\(M\)/(\w+)\.json", sources))
    assert arrows == NOTEBOOKS


def test_a_notebook_reads_from_earlier_notebooks_only():
    names = list(NOTEBOOKS)
    assert all(names.index(source) < names.index(name) for name, sources in NOTEBOOKS.items() for source in sources)


@pytest.fixture(params=BOOKS, ids=[b.stem for b in BOOKS])
def book(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def code_cells(book: dict) -> list[dict]:
    return [c | {"source": "".join(c["source"])} for c in book["cells"] if c["cell_type"] == "code"]


def test_notebooks_are_stripped(book):
    assert [c for c in code_cells(book) if c["outputs"] or c["execution_count"] is not None] == []
    kept = [book["metadata"], *(c["metadata"] for c in book["cells"])]
    assert [m for m in kept if {"papermill", "execution", "widgets"} & set(m)] == []
    assert "injected-parameters" not in {t for c in book["cells"] for t in c["metadata"].get("tags", [])}


def test_one_cell_is_tagged_parameters_and_holds_literals_only(book):
    tagged = [c for c in code_cells(book) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    body = ast.parse(tagged[0]["source"]).body
    assert body and all(isinstance(node, (ast.Assign, ast.AnnAssign)) for node in body)
    values = {}
    for node in body:
        (target,) = node.targets if isinstance(node, ast.Assign) else [node.target]
        values[target.id] = ast.literal_eval(node.value)
    assert all(isinstance(v, (str, int, float, bool, list)) for v in values.values())
    assert {"profile", "name", "data"} <= set(values) and values["profile"] == "demo"
    assert all(line.count("=") <= 1 for line in tagged[0]["source"].splitlines()), "papermill misreads a second ="


def test_other_tags_than_parameters_and_hide_input_are_not_used(book):
    assert {t for c in book["cells"] for t in c["metadata"].get("tags", [])} <= {"parameters", "hide-input"}


def test_cells_are_plain_python_with_short_functions(book):
    for cell in code_cells(book):
        tree = ast.parse(cell["source"])  # a % or ! line does not parse
        assert "get_ipython" not in cell["source"]
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Try), "no try around imports or steps"
            if isinstance(node, ast.FunctionDef):
                assert node.body[-1].end_lineno - node.body[0].lineno + 1 <= 5, node.name


def test_a_notebook_starts_with_its_title_and_ends_by_closing_its_run(book):
    first = book["cells"][0]
    assert first["cell_type"] == "markdown" and re.match(r"# \d\d · ", "".join(first["source"]))
    assert code_cells(book)[-1]["source"].rstrip().endswith("run.finish()")
