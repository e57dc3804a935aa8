"""``tfptq-to-c`` from a checkout."""

import sys

from tfptq.cli.to_c import main

sys.exit(main())
