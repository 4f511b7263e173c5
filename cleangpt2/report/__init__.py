"""Run folders to one HTML page that opens offline; without torch."""
