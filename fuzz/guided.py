"""Fuzz a reader by coverage, with atheris: ``python -m fuzz.guided tflite -runs=100000 FOLDER``.

What stands behind the name goes to libFuzzer. The folder, which may be new, collects inputs that reach new code; good
files are put there first.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tfptq.base", "tfptq.tflite", "tfptq.npu", "tfptq.cli", "tfptq.fit"]):
    from fuzz.targets import TARGETS, any_checksum


def main() -> None:
    """Run the target that is named first."""
    program, name, *options, folder = sys.argv
    target, corpus = TARGETS[name], Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.corpus()):
        (corpus / f"good_{number}").write_bytes(data)
    with any_checksum():
        atheris.Setup([program, *options, folder], target.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
