"""``tfptq-evaluate`` from a checkout."""

import sys

from tfptq.cli.evaluate import main

sys.exit(main())
