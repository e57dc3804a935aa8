"""Entry point of the Bazel test targets: run pytest on the folders and files that the target names."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main([*sys.argv[1:], "-p", "no:cacheprovider"]))
