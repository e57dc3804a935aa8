"""The contracts of import-linter in ``pyproject.toml``: which room may import which."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter import api

ROOT = Path(__file__).parents[1]
CONTRACTS = [contract["id"] for contract in api.read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_contract(contract):
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-logo", "--no-cache", "--contract", contract]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
