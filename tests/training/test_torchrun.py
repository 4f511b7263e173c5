"""The command under torchrun, and runs that lose processes, or a whole machine, on the way."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cleangpt2.training.pretrain import pretrain
from tests.helpers import ROOT, run_python
from tests.training import worker, world
from tests.training.runs import TOKENS, WITHOUT_DROPOUT, weights

HERE = Path(__file__).parent
LAUNCH = ("-m", "torch.distributed.run")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs signals and forks"),
]


def torchrun(*args, **settings):
    return run_python(
        *LAUNCH, "--standalone", "--nproc-per-node", "2", *args,
        env={"OMP_NUM_THREADS": "1"}, timeout_s=200, **settings,
    )  # fmt: skip


def losses(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["loss"] for row in rows if "loss" in row]


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    row = json.dumps({"text": "The cat sat on the mat, and the dog sat on the cat. " * 20})
    file.write_text(f"{row}\n" * 20, encoding="utf-8")
    return file


def command(texts, out, *flags):
    return torchrun(
        "-m", "cleangpt2", "pretrain", str(texts), "--tokenizer", "story", "--out", str(out),
        "--validation", str(texts), "--n-layer", "1", "--n-head", "2", "--n-embd", "16",
        "--n-positions", "16", "--context", "16", "--steps", "4", "--batch-size", "4",
        "--eval-every", "4", "--device", "cpu", "--sharding", "fsdp", *flags,
    )  # fmt: skip


def test_the_command_writes_one_model_and_says_everything_once(tmp_path, texts):
    done = command(texts, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for line in ("tokens", "curves and samples", "done; try"):
        assert done.stdout.count(line) == 1, done.stdout
    assert done.stderr.count("bits per byte") == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoints", "config.json", "metrics.jsonl", "model", "report.html", "samples.jsonl",
        "speed.jsonl",
    ]  # fmt: skip
    read = run_python(
        "-m", "cleangpt2", "generate", "The cat", "--model", str(tmp_path / "run/model")
    )
    assert read.returncode == 0, read.stderr


def test_a_mistake_costs_one_line(tmp_path, texts):
    began = time.monotonic()
    done = command(texts, tmp_path / "run", "--batch-size", "3")
    assert done.returncode == 1
    assert time.monotonic() - began < 100  # a process that waits for another would for half an hour
    assert done.stderr.count("cannot be shared evenly by 2 processes") == 1
    assert done.stderr.count("error:") == 1
    assert not (tmp_path / "run").exists()


# --- processes that are lost ---------------------------------------------------------------------


def alone(folder, steps):
    """The run that never stopped, in one process."""
    config = dataclasses.replace(world.BASE, **worker.CONFIG, steps=steps)
    return weights(pretrain(WITHOUT_DROPOUT, config, TOKENS, folder))


def test_a_process_that_is_killed_is_replaced_and_the_run_goes_on(tmp_path):
    done = torchrun("--max-restarts", "1", str(HERE / "worker.py"), str(tmp_path), "0", "KILL")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists() and len(list(tmp_path.glob("pid-*"))) == 4
    assert "goes on from its checkpoint" in done.stderr
    expected = alone(tmp_path / "alone", 10)
    torch.testing.assert_close(torch.load(tmp_path / "weights.pt"), expected, rtol=0, atol=1e-5)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)


class Host:
    """A machine as far as its network goes: a network namespace, or this machine itself."""

    def __init__(self, name, namespace, address, interface):
        self.name, self.namespace, self.address, self.interface = (
            name,
            namespace,
            address,
            interface,
        )

    def agent(self, folder, rendezvous):
        """Start torchrun on it, one of two."""
        environment = os.environ | {
            "HOST": self.name, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": self.interface,
            # Else an agent that joins later is never told where the workers' store is.
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }  # fmt: skip
        is_host = int(rendezvous.startswith(self.address) and self.name == "a")
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        conf = f"is_host={is_host},keep_alive_interval=1,keep_alive_max_attempt=3,join_timeout=100"
        with open(folder / f"agent-{self.name}.log", "a") as log:
            return subprocess.Popen(
                [*inside, sys.executable, *LAUNCH, "--nnodes", "2", "--nproc-per-node", "1",
                 "--rdzv-backend", "c10d", "--rdzv-id", "run", "--rdzv-endpoint", rendezvous,
                 "--rdzv-conf", conf, "--local-addr", self.address, "--max-restarts", "5",
                 str(HERE / "worker.py"), str(folder), "0.15"],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self, agent, folder):
        """Kill its torchrun and the workers of it, as far as they are still there."""
        if agent.poll() is None:
            agent.kill()
        agent.wait()
        for file in folder.glob(f"pid-{self.name}-*"):
            pid = file.name.split("-")[-1]
            ps = ["ps", "-ww", "-o", "command=", "-p", pid]
            if str(folder) in subprocess.run(ps, capture_output=True, text=True).stdout:
                os.kill(int(pid), signal.SIGKILL)


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def hosts():
    """Two machines: network namespaces with a cable between, where we may make them."""
    names = [f"cg{os.getpid()}{letter}" for letter in "ab"]
    can = shutil.which("ip") and all(ip("netns", "add", name) for name in names)
    can = can and ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
    for number, name in enumerate(names, start=1) if can else ():
        can &= ip("link", "set", name, "netns", name)
        inside = ("-n", name)
        can &= ip(*inside, "addr", "add", f"10.213.7.{number}/24", "dev", name)
        can &= all(ip(*inside, "link", "set", device, "up") for device in (name, "lo"))
    if can:
        yield [
            Host(x, n, f"10.213.7.{i}", n)
            for i, (x, n) in enumerate(zip("ab", names, strict=True), 1)
        ]
    else:
        yield [Host(letter, None, "127.0.0.1", "lo") for letter in "ab"]
    if shutil.which("ip"):
        for name in names:
            ip("netns", "del", name)


def test_a_machine_that_dies_and_comes_back_takes_part_again(tmp_path, hosts):
    a, b = hosts
    rendezvous = f"{a.address}:{29400 + os.getpid() % 1000}"
    first, second = a.agent(tmp_path, rendezvous), b.agent(tmp_path, rendezvous)
    agents = [first, second]
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run/checkpoints/step-0000006").exists():
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.02)
        b.kill(second, tmp_path)
        agents.append(b.agent(tmp_path, rendezvous))
        assert [agent.wait(150) for agent in (first, agents[-1])] == [0, 0]
    finally:
        for host, agent in zip((a, b, b), agents, strict=False):
            host.kill(agent, tmp_path)
    assert len(list(tmp_path.glob("pid-b-*"))) >= 2
    expected = alone(tmp_path / "alone", 24)
    torch.testing.assert_close(torch.load(tmp_path / "weights.pt"), expected, rtol=0, atol=1e-5)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
