"""Pure functions that turn losses and texts into the figures a report shows."""
