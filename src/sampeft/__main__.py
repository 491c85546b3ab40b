"""`python -m sampeft` is the command `sampeft`."""

import sys

from sampeft.cli import main

sys.exit(main())
