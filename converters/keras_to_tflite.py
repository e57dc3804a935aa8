"""``tfptq-keras-to-tflite`` from a checkout."""

import sys

from tfptq.cli.convert import main

sys.exit(main())
