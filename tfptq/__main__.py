"""``python -m tfptq``: the programs of ``tfptq.cli`` as subcommands."""

import sys

from tfptq.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
