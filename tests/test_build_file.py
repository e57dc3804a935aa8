"""Compare the targets of ``BUILD`` with the tree.

What Starlark has in common with Python is all that ``BUILD`` uses, so Python runs it.
"""

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "converters", "cpp", "docs", "examples", "fuzz", "tests", "tfptq")
RULES = ("py_binary", "py_library", "py_test")
#: Import name -> name on PyPI, where they differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl_py",
    "importlinter": "import_linter",
    "sklearn": "scikit_learn",
    "websocket": "websocket_client",
}
#: What is in the library and an entry point as well.
SHARED = {"tests/run_tests.py", "tfptq/__main__.py"}


def find_files(patterns, exclude=()):
    """Starlark's ``glob``."""
    found = {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(found - {*exclude})


@pytest.fixture(scope="module")
def targets():
    """Name -> attributes of each target."""
    found = []

    def rule(kind):
        return lambda **attributes: found.append({"kind": kind, **attributes})

    ignored = dict.fromkeys(("load", "package", "licenses", "exports_files"), lambda *_, **__: None)
    text = (ROOT / "BUILD").read_text(encoding="utf-8")
    exec(compile(text, "BUILD", "exec"), {"glob": find_files, **ignored, **{kind: rule(kind) for kind in RULES}})
    assert len({target["name"] for target in found}) == len(found), "names are not unique"
    return {target["name"]: target for target in found}


def sources():
    return sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def third_party(source):
    """Labels of the packages of others that a file imports."""
    in_tests = [Path(path) for path in sources() if path.startswith("tests/")]
    ours = {*FOLDERS, *(path.stem for path in in_tests), *(path.parent.name for path in in_tests)}
    roots = set()
    for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.split(".")[0])
    return {f"@pypi//{DISTRIBUTIONS.get(root, root)}" for root in roots - ours - sys.stdlib_module_names}


def test_every_source_is_in_one_target(targets):
    owners = Counter(source for target in targets.values() for source in target["srcs"])
    assert {source for source in sources() if owners[source] != 1} == SHARED
    assert {*owners} == {*sources()}


def test_every_room_with_tests_is_run(targets):
    run = {argument for target in targets.values() for argument in target.get("args", [])}
    tests = [source for source in sources() if source.startswith("tests/") and "/test_" in source]
    assert run == {"/".join(source.split("/")[:2]) for source in tests}


def test_third_party_packages_are_those_that_are_imported(targets):
    for name, target in targets.items():
        declared = {label for label in target["deps"] if label.startswith("@pypi//")}
        assert declared == set().union(*map(third_party, {*target["srcs"]} - SHARED)), name


def test_names_lead_somewhere(targets):
    for name, target in targets.items():
        assert {label[1:] for label in target["deps"] if label.startswith(":")} <= {*targets}, name
        assert all((ROOT / path).is_file() for path in (*target["srcs"], *target.get("data", []))), name
        assert target["kind"] == "py_library" or target["main"] in target["srcs"], name
