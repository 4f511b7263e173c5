"""The checker of annotations that ``conftest`` puts on every function of the package."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""As type checkers have it, an int is welcome where a float is (``temperature=0``)."""
