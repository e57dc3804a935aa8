"""``tfptq-verify`` from a checkout."""

import sys

from tfptq.cli.verify import main

sys.exit(main())
