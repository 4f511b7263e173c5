"""A folder that was killed at any moment ends with the bytes of one that was not."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cleangpt2.data import run as module
from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.prepare import prepare
from cleangpt2.errors import ConfigError, DataError
from tests.data.conftest import contents, story
from tests.helpers import ROOT, run_python

CONFIG = PrepareConfig(validation=0.1, shard_tokens=3000, dedupe=True)


class Killed(BaseException):
    """Stands for a process that dies."""


@pytest.fixture
def small_pieces(monkeypatch):
    """Blocks of a few documents, and progress saved after each."""
    monkeypatch.setattr("cleangpt2.data.cutting.PIECE", 3000)
    monkeypatch.setattr("cleangpt2.data.reading.PIECE", 3000)
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0)


def die_at(monkeypatch, owner, name, call):
    """Let the call number `call` of a function be the last."""
    original, calls = getattr(owner, name), itertools.count()

    def dying(*args, **kwargs):
        if next(calls) == call:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "place", ["Run.take", "Run.save", "ShardWriter.append", "ShardWriter.finish", "os.replace"]
)
def test_killed_anywhere_it_goes_on(corpus, tokenizer, tmp_path, monkeypatch, place):
    shutil.copy(corpus / "a.jsonl", corpus / "d.jsonl")  # duplicates, all of them
    index = prepare([str(corpus)], tokenizer, tmp_path / "whole", CONFIG)
    assert index.total("duplicates") == 150
    whole = contents(tmp_path / "whole")
    owner_name, _, name = place.partition(".")
    owner = os if owner_name == "os" else getattr(module, owner_name)
    for call in (0, 1, 6, 14, 21):
        out = tmp_path / f"out{call}"
        with monkeypatch.context() as patch:
            die_at(patch, owner, name, call)
            try:
                prepare([str(corpus)], tokenizer, out, CONFIG)
            except Killed:
                assert not (out / "index.json").exists()
        prepare([str(corpus)], tokenizer, out, CONFIG)
        assert contents(out) == whole


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("separator", [None, "fox"])
def test_killed_in_the_middle_of_a_long_document(tokenizer, tmp_path, monkeypatch, separator):
    (tmp_path / "a.txt").write_text(story(1, words=2000), encoding="utf-8")
    names = [str(tmp_path / "a.txt")]
    config = PrepareConfig(validation=0.5, separator=separator)
    prepare(names, tokenizer, tmp_path / "whole", config)
    out = tmp_path / "out"
    for _ in range(6):
        with monkeypatch.context() as patch:
            die_at(patch, module.Run, "take", 2)  # two blocks further every time
            try:
                prepare(names, tokenizer, out, config)
            except Killed:
                continue
    prepare(names, tokenizer, out, config)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.usefixtures("small_pieces")
def test_it_does_go_on_and_does_not_start_anew(corpus, tokenizer, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, module.Run, "take", 10)
        prepare([str(corpus)], tokenizer, tmp_path / "out", CONFIG)
    done, calls = [], []
    take = module.Run.take
    monkeypatch.setattr(module.Run, "take", lambda *args: (calls.append(1), take(*args)))
    prepare([str(corpus)], tokenizer, tmp_path / "out", CONFIG, progress=done.append)
    whole = len(calls)
    prepare([str(corpus)], tokenizer, tmp_path / "new", CONFIG)
    assert len(calls) - whole == whole + 10
    assert done[0] > 0


def test_a_finished_folder_is_left_alone(corpus, tokenizer, tmp_path):
    first = prepare([str(corpus)], tokenizer, tmp_path / "out", CONFIG)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert prepare([str(corpus)], tokenizer, tmp_path / "out", CONFIG) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"validation": 0.2}, "validation was 0.1, now 0.2"),
        ({"dedupe": False}, "dedupe was True, now False"),
        ("file", "corpus/d.txt is new"),
        ("vocabulary", "vocab_size was 300, now 301"),
        ("longer", "corpus/c.txt had [0-9]+ bytes, now"),
    ],
)
def test_another_job_is_refused(
    corpus, tokenizer, tmp_path, monkeypatch, finished, change, complaint
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(module, "SAVE_EVERY_S", 0)
            die_at(patch, module.Run, "finish", 0)
        try:
            prepare([str(corpus)], tokenizer, out, CONFIG)
        except Killed:
            assert not finished
    before = contents(out)
    config = PrepareConfig(
        **{"validation": 0.1, "shard_tokens": 3000, "dedupe": True}
        | (change if isinstance(change, dict) else {})
    )
    if change == "file":
        (corpus / "d.txt").write_text("new", encoding="utf-8")
    if change == "longer":
        with open(corpus / "c.txt", "a", encoding="utf-8") as file:
            file.write("more")
    if change == "vocabulary":
        tokenizer = tokenizer.add_special_tokens("<|new|>")
    with pytest.raises(ConfigError, match=f"{complaint}.*--fresh to start anew"):
        prepare([str(corpus)], tokenizer, out, config)
    assert contents(out) == before
    prepare([str(corpus)], tokenizer, out, config, fresh=True)
    assert (out / "index.json").exists()


def test_what_was_begun_and_not_done_binds_to_nothing(corpus, tokenizer, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, module.Run, "take", 0)
        prepare([str(corpus)], tokenizer, tmp_path / "out", CONFIG)
    assert (tmp_path / "out" / ".progress.json").exists()
    other = PrepareConfig(validation=0.2)
    prepare([str(corpus)], tokenizer, tmp_path / "out", other)
    prepare([str(corpus)], tokenizer, tmp_path / "new", other)
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_a_file_that_changed_in_between_is_refused(corpus, tokenizer, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "SAVE_EVERY_S", 0)
        die_at(patch, module.Run, "finish", 0)
        prepare([str(corpus)], tokenizer, tmp_path / "out", CONFIG)
    os.utime(corpus / "c.txt", (1, 1))
    with pytest.raises(ConfigError, match="c.txt had .* ns of its last change"):
        prepare([str(corpus)], tokenizer, tmp_path / "out", CONFIG)


def test_progress_that_lost_its_files_is_refused(corpus, tokenizer, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "SAVE_EVERY_S", 0)
        die_at(patch, module.Run, "finish", 0)
        prepare([str(corpus)], tokenizer, out, CONFIG)
    (partial,) = out.glob(".train-*.bin.partial")
    content = partial.read_bytes()
    partial.write_bytes(content[:-2])
    with pytest.raises(DataError, match="gone or shorter .* --fresh"):
        prepare([str(corpus)], tokenizer, out, CONFIG)
    (out / ".progress.json").write_text("{")
    with pytest.raises(DataError, match=r"progress.json is damaged .*--fresh"):
        prepare([str(corpus)], tokenizer, out, CONFIG)
    prepare([str(corpus)], tokenizer, out, CONFIG, fresh=True)


# ---- real processes --------------------------------------------------------------------------

SCRIPT = """
import sys
from cleangpt2.data import cutting, reading, run
from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.prepare import prepare
from cleangpt2.tokenizer import Tokenizer

cutting.PIECE = reading.PIECE = 700
run.SAVE_EVERY_S = 0
corpus, vocabulary, out, workers = sys.argv[1:]
config = PrepareConfig(validation=0.1, shard_tokens=3000, dedupe=True)
if __name__ == "__main__":
    tokenizer = Tokenizer.from_pretrained(vocabulary)
    prepare([corpus], tokenizer, out, config, workers=int(workers))
"""


@pytest.fixture
def large(tokenizer, tmp_path):
    """A corpus that takes a while, and the arguments of a script that prepares it."""
    tokenizer.save(tmp_path / "vocabulary")
    (tmp_path / "script.py").write_text(SCRIPT)
    lines = [json.dumps({"text": story(n)}) for n in range(1500)]
    (tmp_path / "large.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def arguments(name, workers):
        paths = ("script.py", "large.jsonl", "vocabulary", name)
        return [*(str(tmp_path / path) for path in paths), str(workers)]

    return arguments


def begin(arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL
    )


def position(folder):
    """The byte of the corpus up to which the folder has come."""
    try:
        return json.loads((folder / ".progress.json").read_text())["position"][1]
    except FileNotFoundError:
        return 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL there")
def test_killed_for_real_again_and_again(large, tmp_path):
    whole = run_python(*large("whole", 2))
    assert whole.returncode == 0, whole.stderr
    size = (tmp_path / "large.jsonl").stat().st_size
    rng = random.Random(0)
    for workers, place in enumerate(sorted(rng.uniform(0, 0.9) for _ in range(8))):
        process = begin(large("killed", 1 + workers % 3))
        while position(tmp_path / "killed") < place * size and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    resumed = run_python(*large("killed", 1))
    assert resumed.returncode == 0, resumed.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended, and only nobody asked how


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL there")
def test_processes_end_with_the_one_that_began_them(large):
    process = begin(large("out", 2))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        process.wait()
        pytest.skip("only Linux lists the children of a process")
    pids: list[str] = []
    while len(pids) < 3 and process.poll() is None:  # two workers and a tracker of resources
        time.sleep(0.02)
        pids = children.read_text().split()
    assert process.poll() is None, "it ended before it could be killed"
    time.sleep(1)  # the processes have begun to listen
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if alive(pid)]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are another matter there")
def test_ctrl_c_ends_quietly_and_the_same_command_goes_on(large, tmp_path):
    size = (tmp_path / "large.jsonl").stat().st_size
    process = begin(large("out", 2))
    while position(tmp_path / "out") < 0.3 * size and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) not in (0, -signal.SIGKILL)
    before = position(tmp_path / "out")
    assert before >= 0.3 * size
    for name in ("out", "whole"):
        done = run_python(*large(name, 1))
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
