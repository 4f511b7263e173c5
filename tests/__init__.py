"""The tests mirror the package: ``tests/model/test_cache.py`` tests ``model/cache.py``."""
