"""Fuzz readers: ``python -m fuzz --inputs 100000 tflite``, without a name all of them."""

import argparse
from pathlib import Path

from fuzz.run import run
from fuzz.targets import TARGETS


def main() -> None:
    """Run the targets that are named."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all unless given")
    parser.add_argument("--inputs", type=int, default=100_000, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="of the changes")
    parser.add_argument("--found", type=Path, default=Path("out/fuzz"), help="folder for inputs that fail")
    parser.add_argument(
        "--accept", type=Path, help="program of cpp/accept_files.cc, compared with the reader of Python"
    )
    arguments = parser.parse_args()
    for name in arguments.targets or TARGETS:
        if name not in TARGETS:
            parser.error(f"there is no target {name!r}; there are {', '.join(TARGETS)}")
        accept = arguments.accept if name == "tflite" else None
        outcome = run(TARGETS[name], arguments.inputs, arguments.seed, arguments.found / name, accept)
        print(
            f"{name}: {outcome.inputs:,} inputs, {outcome.accepted:,} accepted, none failed, the slowest took "
            f"{outcome.slowest:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
