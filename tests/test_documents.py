"""What the documents say about the code: snippets run, messages, flags and links exist."""

import re
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest
from snippets import DOCUMENTS, WITH_SNIPPETS, blocks

import tfptq
from tfptq.cli.main import PROGRAMS as SUBCOMMANDS
from tfptq.report.diagnosis import KINDS
from tfptq.tflite.layouts import LAYOUTS

ROOT = Path(__file__).parents[1]
#: Documents whose snippets compute without a model.
NUMBERS_ONLY = ("docs/papers.md",)
PROGRAMS = {
    "tfptq-keras-to-tflite": "convert",
    "tfptq-evaluate": "evaluate",
    "tfptq-inspect": "inspect",
    "tfptq-verify": "verify",
    "tfptq-search": "search",
    "tfptq-sweep-granularity": "sweep",
    "tfptq-to-c": "to_c",
    **{f"tfptq {name}": name.replace("-", "_") for name in SUBCOMMANDS},
}


@pytest.fixture
def files(digits, tmp_path, monkeypatch):
    """The files that the snippets name, in the current folder."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="stem")(inputs)
    x = keras.layers.Dense(8, activation="relu", name="head_1")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="logits")(x))
    monkeypatch.chdir(tmp_path)
    model.save("net.keras")
    arrays = {"samples": digits.x_train[:64], "test_images": digits.x_test[:32], "test_labels": digits.y_test[:32]}
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    return tmp_path


@pytest.mark.parametrize("document", WITH_SNIPPETS)
def test_python_snippets_run(files, document):
    scope = {"__name__": "snippets"}
    for line, code in blocks(document, "python"):
        exec(compile("\n" * line + code, document, "exec"), scope)  # lines of tracebacks are those of the document
    assert document in NUMBERS_ONLY or (scope["result"].tflite and (files / "net.tflite").exists())


def test_json_snippets_are_configs():
    snippets = [text for _, text in blocks("docs/configs.md", "json")]
    assert snippets and all(tfptq.QuantizationConfig.from_json(text) for text in snippets)


def text_of(document: str) -> str:
    """A document as it is in the repository."""
    return (ROOT / document).read_text(encoding="utf-8")


def section(document: str, head: str) -> str:
    """What stands below a head of the second level, up to the next one of any level."""
    return re.split(r"^##+ ", text_of(document).split(f"## {head}\n")[1], flags=re.M)[0]


def first_cells(text: str) -> list[str]:
    """Code in the first column of the tables of a text."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


@pytest.mark.parametrize("head", ["Other warnings and notes", "Error messages"])
def test_messages_are_those_of_the_code(head):
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tfptq").rglob("*.py")))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # literals over several lines
    messages = [
        message for message in first_cells(section("docs/messages.md", head)) if "QuantizeWrapper" not in message
    ]
    assert len(messages) > 4
    assert [message for message in messages if message not in sources] == []


def test_all_findings_are_explained():
    assert sorted(first_cells(section("docs/messages.md", "Findings"))) == sorted(KINDS)


def test_all_presets_and_targets_are_in_the_tables():
    assert sorted(first_cells(section("docs/choosing.md", "Presets"))) == sorted(tfptq.PRESETS)
    assert first_cells(section("docs/choosing.md", "Targets")) == list(tfptq.TARGETS)


def test_layouts_are_in_the_table():
    text = section("docs/targets.md", "How weights below 8 bits are stored")
    named = {
        name for row in text.splitlines() if row.startswith("| `") for name in re.findall("`(\\w+)`", row.split("|")[1])
    }
    assert named == {layout.name for layout in LAYOUTS}


def test_all_public_names_are_in_the_reference():
    described = re.findall(r"^::: tfptq\.(\w+)$", text_of("docs/api.md"), re.MULTILINE)
    assert sorted([*described, "PRESETS", "TARGETS", "__version__"]) == sorted(tfptq.__all__)


def test_tables_of_benchmarks_have_one_place():
    marks = [mark for document in DOCUMENTS for mark in re.findall(r"<!-- (\w+:\w+) -->", text_of(document))]
    assert len(marks) == len({*marks})
    begun, ended = ({mark.split(":")[0] for mark in marks if mark.endswith(end)} for end in (":begin", ":end"))
    assert begun == ended and {"landing", "targets", "default"} <= begun


@pytest.mark.parametrize("document", DOCUMENTS)
def test_flags_of_commands_exist(document):
    for _, text in blocks(document, " *"):
        for command in text.replace("\\\n", " ").splitlines():
            for program in (name for name in PROGRAMS if command.startswith(f"{name} ")):
                flags = import_module(f"tfptq.cli.{PROGRAMS[program]}").FLAGS
                assert [name for name in re.findall(r"\s--(\w+)", command) if name not in flags] == [], command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(document)):
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target
