"""A disk that fills up while a corpus is prepared costs nothing that was written before."""

from tests.data.conftest import contents
from tests.disk import run_on_small_disk

SCRIPT = """
import shutil, sys
from pathlib import Path
from cleangpt2.data import run
from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.prepare import prepare
from cleangpt2.errors import OutputError
from cleangpt2.tokenizer import Tokenizer

small, corpus, vocabulary, kept = map(Path, sys.argv[1:])
tokenizer, config = Tokenizer.from_pretrained(vocabulary), PrepareConfig(shard_tokens=2000)
run.SAVE_EVERY_S = 0
try:
    prepare([str(corpus)], tokenizer, small / "out", config)
except OutputError as error:
    print(error)
print((small / "out" / "index.json").exists(), (small / "out" / ".progress.json").exists())
grow(small)
prepare([str(corpus)], tokenizer, small / "out", config)
shutil.copytree(small / "out", kept)
prepare([str(corpus)], tokenizer, kept.with_name("whole"), config)
"""


def test_the_same_command_goes_on_where_the_disk_was_full(corpus, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "vocabulary")
    paths = [str(tmp_path / name) for name in ("corpus", "vocabulary", "kept")]
    done = run_on_small_disk(SCRIPT, tmp_path / "small", *paths, size="48k")
    assert done.returncode == 0, done.stderr[-3000:]
    complaint, state = done.stdout.splitlines()
    assert "cannot write to" in complaint and "No space left on device; make room" in complaint
    assert state == "False True"
    assert contents(tmp_path / "kept") == contents(tmp_path / "whole")
