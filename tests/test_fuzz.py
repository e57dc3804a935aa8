"""A short run of each target of fuzzing; ``make fuzz`` is a long one."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_cpp_reader import COMPILER, needs_compiler

from fuzz.mutations import mutated
from fuzz.run import DisagreementError, run
from fuzz.targets import CONFORMANCE, TARGETS, Target

ROOT = Path(__file__).parents[1]
INPUTS = 400
CLANG = next(filter(None, map(shutil.which, ("clang++", "clang++-14", "clang++-16", "clang++-19"))), None)
_FUZZING = "-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION"


@pytest.mark.parametrize("name", TARGETS)
def test_targets_survive(name, tmp_path):
    outcome = run(TARGETS[name], INPUTS, 0, tmp_path)
    assert 5 <= outcome.accepted < INPUTS and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_accepted(name):
    target = TARGETS[name]
    good = [data for data in target.corpus() if target.check(data)]
    assert len(good) >= 3


@needs_compiler
def test_python_and_cpp_accept_the_same(tmp_path):
    program = tmp_path / "accept_files"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", _FUZZING]
    subprocess.run([COMPILER, *flags, "-o", program, ROOT / "cpp" / "accept_files.cc"], check=True)
    assert run(TARGETS["tflite"], 2 * INPUTS, 1, tmp_path / "found", program).accepted > 10


@needs_compiler
def test_the_fuzz_target_of_cpp_compiles(tmp_path):
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-c"]
    subprocess.run([COMPILER, *flags, "-o", tmp_path / "object", ROOT / "cpp" / "fuzz_reader.cc"], check=True)


@pytest.mark.skipif(CLANG is None, reason="clang is not installed")
def test_the_fuzz_target_of_cpp_survives(tmp_path):
    program = tmp_path / "fuzz_reader"
    flags = ["-std=c++17", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([CLANG, *flags, "-o", program, ROOT / "cpp" / "fuzz_reader.cc"], check=True)
    corpus = [CONFORMANCE, CONFORMANCE / "refused", CONFORMANCE / "unverified"]
    (tmp_path / "found").mkdir()
    options = ["-runs=5000", "-max_len=4096", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    result = subprocess.run([program, *options, tmp_path / "found", *corpus], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_an_input_that_fails_is_kept(tmp_path):
    def fail(data):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Target(lambda: [b"good"], fail), 1, 7, tmp_path / "found")
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["seed_7_input_0"]


def test_readers_that_disagree_are_told(tmp_path):
    program = tmp_path / "refuses_all"
    program.write_text("#!/bin/sh\nwhile head -c 4 > /dev/null; do printf 0; sleep 0.1; done\n")
    program.chmod(0o755)
    with pytest.raises(DisagreementError, match="Python accepts what C"):
        run(Target(lambda: [b""], lambda data: True), 1, 0, tmp_path / "found", program)


def test_changes_follow_from_the_seed():
    corpus = TARGETS["tflite"].corpus()
    one, other, third = (
        [mutated(corpus, np.random.default_rng(seed), b"TPQB") for _ in range(3)] for seed in (0, 0, 1)
    )
    assert one == other != third
