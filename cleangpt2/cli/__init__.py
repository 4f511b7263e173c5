"""The command line: one file a command, and ``main.py`` that imports only the one asked for."""
