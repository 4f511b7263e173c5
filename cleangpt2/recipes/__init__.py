"""Named training runs as Python functions: how the bundled models were made."""
