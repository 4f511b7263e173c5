"""``python -m cleangpt2`` is the command ``cleangpt2``."""

import sys

try:
    from cleangpt2.cli.main import entry
except KeyboardInterrupt:  # main() catches those that come later
    print("\nstopped", file=sys.stderr)
    sys.exit(130)

entry()
