"""``tfptq-sweep-granularity`` from a checkout."""

import sys

from tfptq.cli.sweep import main

sys.exit(main())
