"""Weights of other programs: one file a format, and the way from any of them to our folder."""
