"""``tfptq-search`` from a checkout."""

import sys

from tfptq.cli.search import main

sys.exit(main())
