"""A disk that is really too small, for tests of what happens when it fills up.

Linux lets anybody mount a file system in memory in a namespace of their own; nothing of it is left
when the process ends.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import run_python

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--fork")
_MOUNT = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && exec "$@"'

GROW = """
def grow(folder, size="64m"):
    '''Make room on the small disk.'''
    import subprocess
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
"""
"""For the beginning of a script that runs there."""


def run_on_small_disk(
    script: str, folder: Path, *args: str, size: str = "1m"
) -> "subprocess.CompletedProcess[str]":
    """Run a Python script with a file system of that size mounted on `folder`, its first argument.

    Skips the test where that is not possible.
    """
    folder.mkdir()
    inside = (*_NAMESPACE, "sh", "-c", _MOUNT, "sh", size, str(folder))
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    wrapper = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    return run_python(
        "-c", wrapper, *inside, sys.executable, "-c", GROW + script, str(folder), *args,
        timeout_s=250,
    )  # fmt: skip
