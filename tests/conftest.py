"""What every test stands on: fixed seeds, no network, checked shapes, the data folder."""

import atexit
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

# Before torch and huggingface_hub read them: one thread a process (small tensors gain nothing
# from more, and xdist brings its own processes), and no call to the hub.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_COLOR", "1")
# What the package remembers about this machine; inherited by every process the tests start.
if "CLEANGPT2_CACHE" not in os.environ:
    os.environ["CLEANGPT2_CACHE"] = tempfile.mkdtemp(prefix="cleangpt2-tests-")
    atexit.register(shutil.rmtree, os.environ["CLEANGPT2_CACHE"], ignore_errors=True)

# Started in the background by a shell, the tests ignore Ctrl-C, and what they start would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

from tests.helpers import ROOT, missing

try:
    from jaxtyping import install_import_hook

    import tests.typecheck  # noqa: F401 (needs beartype)
except ImportError:
    pass  # the tests run without it, only the shapes in the signatures stay unchecked
else:
    # Dynamo cannot trace checked functions, so tests of torch.compile switch the checks off.
    if os.environ.get("CLEANGPT2_CHECK_SHAPES", "1") == "1":
        install_import_hook("cleangpt2", "tests.typecheck.check")

try:
    import hypothesis
except ImportError:
    pass
else:
    hypothesis.settings.register_profile("cleangpt2", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("cleangpt2")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Accept the ``timeout`` of pyproject.toml where pytest-timeout is not installed."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "seconds a test may take (needs pytest-timeout)")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """The same random numbers for every test, alone or in any order."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(0)


def is_this_machine(host: str) -> bool:
    """Whether ``host`` is a name or an address of the loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not is_this_machine(str(address[0])):
            raise ConnectionRefusedError(f"a test may not connect to {address!r}")
        connect(self, address)  # a string is the path of a Unix socket

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real texts and reference values beside the checkout, if it is there."""
    folder = Path(os.environ.get("CLEANGPT2_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        missing(f"no data folder {folder} (set CLEANGPT2_DATA to one)")
    return folder
