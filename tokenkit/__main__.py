"""``python -m tokenkit`` is the command line."""

import sys

from tokenkit.cli import main

sys.exit(main())
