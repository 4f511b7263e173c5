"""What several tests share: optional modules, and the command line in a process of its own."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent


def missing(what: str) -> NoReturn:
    """Skip this test for want of ``what``; fail it where everything has to be there."""
    if os.environ.get("CLEANGPT2_REQUIRE_ALL") == "1":
        pytest.fail(f"{what}, and CLEANGPT2_REQUIRE_ALL=1 asks for every oracle and all data")
    pytest.skip(what, allow_module_level=True)


def require(module: str) -> ModuleType:
    """Import an optional module (an oracle, an extra), or skip the test that needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing(f"{module} is not installed ({error})")


def unchecked(module: str) -> ModuleType:
    """The module as users have it, loaded once more without the checks of ``conftest.py``.

    Those refuse a wrong type before our own code can say in one line what is wrong with it.
    """
    origin = importlib.util.find_spec(module).origin
    spec = importlib.util.spec_from_file_location(f"{module}_unchecked", origin)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return fresh


def run_python(
    *args: str,
    input: str | None = None,
    env: dict[str, str | None] | None = None,
    cwd: str | Path | None = None,
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run this Python in a fresh process that finds the checkout's package.

    Args:
        input: What stands on its standard input; ``None`` means an empty one.
        env: Changes to the environment; a value of ``None`` removes the variable.
        cwd: The folder it starts in, the current one by default.
        timeout_s: Kill it and raise ``TimeoutExpired`` after so many seconds.
    """
    changes = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "100", **(env or {})}
    environment = {**os.environ, **{k: v for k, v in changes.items() if v is not None}}
    for name in (name for name, value in changes.items() if value is None):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, *args],
        input=input or "",
        env=environment,
        cwd=cwd,
        timeout=timeout_s,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def run_cli(
    *args: str,
    input: str | None = None,
    env: dict[str, str | None] | None = None,
    cwd: str | Path | None = None,
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run ``cleangpt2 <args>`` in a fresh process; see ``run_python``."""
    return run_python("-m", "cleangpt2", *args, input=input, env=env, cwd=cwd, timeout_s=timeout_s)


def answers(setup: str, calls: Iterable[str]) -> dict[str, str]:
    """What each call gives, as text: its value, or the message of one of our errors.

    The calls run in a process of their own, where nothing checks annotations before the package
    does. Another error than ours shows with its class.

    Args:
        setup: Python lines that define the names in the calls.
        calls: Python expressions.
    """
    script = f"""
import json, sys
from cleangpt2.errors import CleanGPT2Error
{setup}

def answer(call):
    try:
        return str(eval(call))
    except CleanGPT2Error as error:
        return str(error)
    except Exception as error:
        return repr(error)

print(json.dumps({{call: answer(call) for call in json.load(sys.stdin)}}))
"""
    done = run_python("-c", script, input=json.dumps(list(calls)))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)
