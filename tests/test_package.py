import configparser
import importlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hand_made import FileBuilder

import tfptq

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", tfptq.__all__)
def test_every_name_in_the_table_of_contents_exists(name):
    assert getattr(tfptq, name) is not None
    assert name in dir(tfptq)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tfptq.nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'PerChanel'; did you mean 'PerChannel'\?"):
        tfptq.PerChanel  # noqa: B018


@pytest.mark.parametrize("name", ["DataError", "FloatEqualityError", "FormatError", "LayoutError", "VerificationError"])
def test_errors_are_value_errors_that_can_be_caught_by_name(name):
    assert issubclass(getattr(tfptq, name), ValueError)


def test_errors_are_those_that_are_raised():
    with pytest.raises(tfptq.FormatError):
        tfptq.inspect(b"no file at all")
    with pytest.raises(tfptq.VerificationError):
        tfptq.verify(FileBuilder((1, 5, 5, 3)).finish(None))


def test_presets_can_be_listed():
    assert "w8a8_shift" in tfptq.PRESETS
    assert all(tfptq.QuantizationConfig.from_preset(name).name == name for name in tfptq.PRESETS)


def _modules_after(code: str) -> set[str]:
    program = f"import sys; {code}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_import_is_cheap():
    assert not {"tensorflow", "keras", "tensorflow_model_optimization"} & _modules_after("import tfptq")


def test_reading_a_file_does_not_load_tensorflow():
    code = "import tfptq; tfptq.PRESETS, tfptq.FormatError, tfptq.VerificationError, tfptq.DataError, tfptq.inspect"
    assert not {"tensorflow", "keras"} & _modules_after(code)


@pytest.mark.parametrize(
    "module",
    [
        "tfptq.data.errors",
        "tfptq.npu",
        "tfptq.report",
        "tfptq.report.compare",
        "tfptq.fit.measure",
        "tfptq.lowering.describe",
        "tfptq.lowering.emit",
        "tfptq.ops.table",
        "tfptq.tflite.verify",
    ],
)
def test_what_works_on_files_does_not_load_tensorflow(module):
    assert not {"tensorflow", "keras"} & _modules_after(f"import {module}")


def test_the_mathematics_loads_tensorflow_for_learned_rounding_only():
    core = Path(tfptq.__file__).parent / "core"
    modules = {".".join(path.relative_to(core.parent.parent).with_suffix("").parts) for path in core.rglob("*.py")}
    modules = {name.removesuffix(".__init__") for name in modules} - {"tfptq.core.rounding.tensors"}
    code = "; ".join(f"import {module}" for module in sorted(modules))
    assert not {"tensorflow", "keras"} & _modules_after(code)


def test_the_model_optimization_toolkit_is_not_imported():
    """Importing it turns tf.keras into Keras 2 for the whole process."""
    loaded = _modules_after("import tfptq; [getattr(tfptq, name) for name in tfptq.__all__]")
    assert "tensorflow" in loaded
    assert not {"tensorflow_model_optimization", "tf_keras"} & loaded


#: Folders that programs of the repository fill.
MADE = {"__pycache__", "assets", "models", "node_modules"}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Names of the files in the source archive, and the wheel."""
    tree = tmp_path_factory.mktemp("archives") / "tree"
    others = (".git", ".venv", ".*_cache", "*.egg-info", "build", "dist", "out", *MADE)
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*others))
    code = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, check=True)
    (source,), (wheel,) = (tree / "dist").glob("*.tar.gz"), (tree / "dist").glob("*.whl")
    with tarfile.open(source) as opened:
        in_source = {name.partition("/")[2] for name in opened.getnames()}
    return in_source, zipfile.ZipFile(wheel)


def test_the_source_archive_holds_what_the_tests_need(archives):
    folders = ("benchmarks", "converters", "cpp", "docs", "examples", "tests", "tfptq")
    wanted = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    wanted += [ROOT / name for name in ("BUILD", "LICENSE", "Makefile", "README.md", "pyproject.toml", "setup.py")]
    names = {path.relative_to(ROOT).as_posix() for path in wanted if not MADE.intersection(path.parts)}
    assert names - archives[0] == set()


def test_the_wheel_holds_the_package_alone_and_all_of_it(archives):
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tfptq").rglob("*") if path.is_file()}
    found = {name for name in archives[1].namelist() if ".dist-info/" not in name}
    assert found == {name for name in wanted if "__pycache__" not in name}
    assert {"tfptq/py.typed", "tfptq/__init__.pyi", "tfptq/tflite/blocks.fbs"} <= found


def test_the_programs_of_the_wheel_exist(archives):
    parser = configparser.ConfigParser()
    parser.read_string(archives[1].read(f"tfptq-{tfptq.__version__}.dist-info/entry_points.txt").decode())
    programs = dict(parser["console_scripts"])
    assert {"tfptq", "tfptq-inspect", "tfptq-verify"} <= {*programs}
    for place in programs.values():
        module, function = place.split(":")
        assert callable(getattr(importlib.import_module(module), function))
