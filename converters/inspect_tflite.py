"""``tfptq-inspect`` from a checkout."""

import sys

from tfptq.cli.inspect import main

sys.exit(main())
