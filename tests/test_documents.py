"""What the documents say about the code: snippets run, messages, flags and links exist."""

import re
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest
from snippets import WITH_SNIPPETS, blocks

import tfptq
from tfptq.cli.main import PROGRAMS as SUBCOMMANDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for place in ("*.md", "cpp/*.md", "docs/*.md", "examples/*/*.md", "fuzz/*.md", "tests/conformance/*.md")
    for path in ROOT.glob(place)
)
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
    assert scope["result"].tflite and (files / "net.tflite").exists()


def test_json_snippets_are_configs():
    snippets = [text for _, text in blocks("docs/guide.md", "json")]
    assert snippets and all(tfptq.QuantizationConfig.from_json(text) for text in snippets)


def test_messages_are_those_of_the_code():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tfptq").rglob("*.py")))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # literals over several lines
    table = (ROOT / "docs/guide.md").read_text(encoding="utf-8").split("## Error messages")[1].split("###")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(messages) > 15
    assert [message for message in messages if message not in sources] == []


def test_every_preset_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in tfptq.PRESETS if f"| `{name}`" not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_flags_of_commands_exist(document):
    for _, text in blocks(document, " *"):
        for command in text.replace("\\\n", " ").splitlines():
            for program in (name for name in PROGRAMS if command.startswith(f"{name} ")):
                flags = import_module(f"tfptq.cli.{PROGRAMS[program]}").FLAGS
                assert [name for name in re.findall(r"\s--(\w+)", command) if name not in flags] == [], command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target
