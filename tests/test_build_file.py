"""Compare the targets of ``BUILD`` with the tree: sources, and dependencies with what the sources import.

Starlark's calls and literals are Python syntax, so Python's own parser reads the file.
"""

import ast
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "converters", "examples", "tests", "tfptq")
RULES = ("py_binary", "py_library", "py_test")
#: Folders whose modules are imported without a prefix, as ``pythonpath`` in pyproject.toml says.
TEST_ROOTS = ("tests", "tests/graph")
#: Import name -> name on PyPI, where they differ.
DISTRIBUTIONS = {"PIL": "pillow", "absl": "absl_py", "sklearn": "scikit_learn"}
#: Target that has everything which the table of contents, ``import tfptq``, loads when a name is used.
WHOLE_PACKAGE = "tfptq"
TEST_ENTRY_POINT = "tests/run_tests.py"


@dataclass(frozen=True)
class Target:
    rule: str
    name: str
    srcs: tuple[str, ...]
    deps: tuple[str, ...]
    data: tuple[str, ...]
    args: tuple[str, ...]
    main: str | None


def parse(text: str) -> list[Target]:
    """The targets of a BUILD file whose attributes are literals."""
    targets = []
    for statement in ast.parse(text).body:
        call = statement.value
        if isinstance(call, ast.Call) and call.func.id in RULES:
            values = {item.arg: ast.literal_eval(item.value) for item in call.keywords}
            lists = {key: tuple(values.get(key, ())) for key in ("srcs", "deps", "data", "args")}
            targets.append(Target(rule=call.func.id, name=values["name"], main=values.get("main"), **lists))
    return targets


@pytest.fixture(scope="module")
def targets() -> list[Target]:
    return parse((ROOT / "BUILD").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def owners(targets) -> dict[str, list[str]]:
    """Source -> names of the targets that have it."""
    found = defaultdict(list)
    for target in targets:
        for source in target.srcs:
            found[source].append(target.name)
    return found


def sources_in_tree() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def module_file(name: str, folder: Path) -> str | None:
    """The file of a module of this repository, or None for a module from elsewhere."""
    for root in (ROOT, *(ROOT / item for item in TEST_ROOTS if folder.is_relative_to(ROOT / "tests"))):
        path = root.joinpath(*name.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate.relative_to(ROOT).as_posix()
    return None


def imported(source: str) -> set[str]:
    """Dotted names that a file imports; ``from a import b`` gives ``a.b`` when that is a module, else ``a``."""
    path, names = ROOT / source, set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if module_file(inner, path.parent) else node.module)
    return names


def loaded_files(name: str, folder: Path) -> list[str]:
    """The files of this repository that run when a module is imported: its own and its packages'."""
    parts = name.split(".")
    prefixes = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return [file for file in (module_file(prefix, folder) for prefix in prefixes) if file is not None]


def needed_labels(target: Target, owners: dict[str, list[str]]) -> dict[str, str]:
    """Label that a target must depend on -> the import that makes it so."""
    needed = {}
    for source in filter(lambda path: (ROOT / path).is_file(), target.srcs):
        for name in imported(source):
            files, root = loaded_files(name, (ROOT / source).parent), name.split(".")[0]
            labels = {f":{owner}" for file in files for owner in owners[file] if owner != target.name}
            if name == WHOLE_PACKAGE:
                labels = {f":{WHOLE_PACKAGE}"}
            elif not files and root not in sys.stdlib_module_names:
                labels = {f"@pypi//{DISTRIBUTIONS.get(root, root)}"}
            needed |= dict.fromkeys(labels, f"{source} imports {name}")
    return needed


def neighbours(source: str, owners: dict[str, list[str]]) -> list[str]:
    """Targets that have sources in the folder of ``source``, or else in the nearest folder above it."""
    for folder in Path(source).parents:
        beside = [other for other in owners if Path(other).parent == folder and other != TEST_ENTRY_POINT]
        if beside:
            return sorted({name for other in beside for name in owners[other]})
    return []


def test_every_source_is_in_a_target(owners):
    complaints = []
    for source in sources_in_tree():
        if source not in owners:
            near = neighbours(source, owners)
            place = f"the srcs of target {' or '.join(map(repr, near))}" if near else "a new target"
            complaints.append(f"{source} is missing; add it to {place}")
    assert not complaints, "BUILD:\n" + "\n".join(complaints)


def test_every_named_file_exists(targets):
    complaints = [
        f"target {target.name!r} names {path}, which does not exist"
        for target in targets
        for path in (*target.srcs, *target.data, *filter(None, [target.main]))
        if not (ROOT / path).is_file()
    ]
    assert not complaints, "BUILD:\n" + "\n".join(complaints)


def test_no_source_is_in_two_targets(owners):
    shared = {source: names for source, names in owners.items() if len(names) > 1 and source != TEST_ENTRY_POINT}
    assert not shared, f"BUILD: sources in several targets: {shared}"


def test_every_test_runs(targets):
    """A test target runs what its ``args`` name, files or folders, and not all of its sources."""
    idle = [
        f"target {target.name!r} has {source} in srcs and does not run it: add it to args"
        for target in targets
        for source in target.srcs
        if Path(source).name.startswith("test_")
        and not any(Path(source).is_relative_to(argument) for argument in target.args)
    ]
    assert not idle, "BUILD:\n" + "\n".join(idle)


def test_dependencies_are_what_the_sources_import(targets, owners):
    complaints = []
    for target in targets:
        needed = needed_labels(target, owners)
        missing, idle = sorted(set(needed) - set(target.deps)), sorted(set(target.deps) - set(needed))
        complaints += [f"target {target.name!r} lacks {label} in deps: {needed[label]}" for label in missing]
        complaints += [f"target {target.name!r} has {label} in deps, which no source imports" for label in idle]
    assert not complaints, "BUILD:\n" + "\n".join(complaints)


def test_dependencies_have_no_cycle(targets):
    graph = {f":{target.name}": [label for label in target.deps if label.startswith(":")] for target in targets}
    done = set()

    def visit(label, path):
        assert label not in path, "BUILD: cycle of dependencies " + " -> ".join([*path, label])
        if label not in done:
            for dependency in graph[label]:
                visit(dependency, (*path, label))
            done.add(label)

    for label in graph:
        visit(label, ())


def test_names_are_unique_and_entry_points_are_sources(targets):
    names = [target.name for target in targets]
    assert len(names) == len(set(names))
    for target in targets:
        assert target.rule == "py_library" or target.main in target.srcs, target.name
    assert {rule for rule in RULES if any(target.rule == rule for target in targets)} == set(RULES)
