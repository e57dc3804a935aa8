"""What type checkers make of the package: mypy reads a user's program, and the snippets of the documents."""

import ast
from pathlib import Path

import pytest
from mypy import api
from snippets import WITH_SNIPPETS, blocks

import tfptq

ROOT = Path(__file__).parents[1]
CONSUMER = ROOT / "tests" / "typed_consumer.py"


def program_name(document: str) -> str:
    """Of the program that the snippets of a document are."""
    return document.removesuffix(".md").replace("/", "_")


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """Name of a program -> (line, text) of what mypy finds wrong in it."""
    folder = tmp_path_factory.mktemp("types")
    programs = [CONSUMER]
    for document in WITH_SNIPPETS:
        programs.append(folder / f"{program_name(document)}.py")
        programs[-1].write_text("\n".join(code for _, code in blocks(document, "python")))
    flags = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", str(ROOT))
        output, errors, code = api.run([*flags, *map(str, programs)])
    assert code in (0, 1), errors
    found = {program.name: [] for program in programs}
    for line in output.splitlines():
        if ": error: " in line:
            name, number, text = line.split(":", 2)
            found[Path(name).name].append((int(number), text))
    return found


def test_mistakes_are_found_and_nothing_else(complaints):
    lines = CONSUMER.read_text(encoding="utf-8").splitlines()
    expected = [(number, line.split("  # ")[1]) for number, line in enumerate(lines, 1) if "  # " in line]
    found = [(number, text.rpartition("[")[2].rstrip("]")) for number, text in complaints[CONSUMER.name]]
    assert found == expected, complaints[CONSUMER.name]


@pytest.mark.parametrize("document", WITH_SNIPPETS)
def test_documents_are_well_typed(complaints, document):
    assert complaints[f"{program_name(document)}.py"] == []


def test_type_checkers_see_the_table_of_contents():
    stub = ast.parse((ROOT / "tfptq" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = {node.module: sorted(name.name for name in node.names) for node in stub.body if hasattr(node, "module")}
    assert imports.pop("tfptq.version") == ["__version__"]
    assert imports == {module: sorted(names) for module, names in tfptq._CONTENTS.items()}
    (listed,) = (ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(listed) == sorted(tfptq.__all__)
