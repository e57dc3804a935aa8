import os
import subprocess
import sys
from importlib import import_module

import pytest

from tfptq.cli.main import PROGRAMS, main
from tfptq.version import __version__


def module_of(name):
    return import_module(f"tfptq.cli.{name.replace('-', '_')}")


def test_help_lists_the_subcommands(capsys):
    assert main(["tfptq", "--help"]) == 0
    out, err = capsys.readouterr()
    assert all(f"\n  {name} " in out for name in PROGRAMS) and err == ""


def test_version(capsys):
    assert main(["tfptq", "--version"]) == 0
    assert capsys.readouterr().out == f"tfptq {__version__}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["conver"], "tfptq: unknown subcommand 'conver'; did you mean convert? (see tfptq --help)\n"),
        (
            ["quantize"],
            "tfptq: unknown subcommand 'quantize'; there are convert, evaluate, inspect, verify, search",
        ),
        (["--model=net.keras"], "tfptq: unknown subcommand '--model=net.keras'"),
        ([], "tfptq: name a subcommand: convert, evaluate, inspect, verify, search, sweep, to-c"),
    ],
)
def test_wrong_subcommands(capsys, arguments, message):
    assert main(["tfptq", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message) and err.count("\n") == 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_subcommand_has_a_program_with_flags_of_its_own(capsys, name):
    assert main(["tfptq", name, "--help"]) == 0
    program = module_of(name)
    assert capsys.readouterr().out.startswith(program.__doc__.strip())
    assert main(["tfptq", name, "--colour"]) == 2
    assert capsys.readouterr().err.startswith(f"tfptq {name}: Unknown command line flag 'colour'")
    others = [module_of(other).FLAGS for other in PROGRAMS if other != name]
    assert all(program.FLAGS is not flags for flags in others)


def test_a_subcommand_does_its_job(tflite_file, capfd):
    assert main(["tfptq", "verify", str(tflite_file)]) == 0
    assert capfd.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error(tflite_file):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tfptq", "inspect", str(tflite_file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["-m", "tfptq", "convert"], ["converters/keras_to_tflite.py"]])
def test_module_and_script(pytestconfig, arguments):
    command = [sys.executable, *arguments, "--help"]
    environment = {"PYTHONPATH": str(pytestconfig.rootpath)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=pytestconfig.rootpath, env=environment
    )
    assert done.stdout.startswith("Quantize a trained model") and "--calibration_data" in done.stdout
    assert done.stderr == ""
