"""``python -m cleangpt2`` is the command ``cleangpt2``."""

from cleangpt2.cli.main import entry

entry()
