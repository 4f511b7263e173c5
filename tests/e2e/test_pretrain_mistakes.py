"""What can be wrong with a run costs one line, before its texts are read, and changes nothing.

In this process, for the command line takes seconds to start.
"""

import json
import shutil

import numpy as np
import pytest

from cleangpt2.cli.main import main
from cleangpt2.data import batches
from cleangpt2.training import track
from tests.helpers import run_python

TEXT = "the cat sat on the mat and the dog sat on the log. "
SMALL = (
    "--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--n-positions", "32",
    "--batch-size", "2", "--context", "16", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Texts, a vocabulary, a prepared folder and a run, which the tests only read."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "corpus.txt").write_text(TEXT * 40, encoding="utf-8")
    (folder / "empty.txt").write_text(" \n", encoding="utf-8")
    (folder / "tiny.txt").write_text("a cat", encoding="utf-8")
    lines = [json.dumps({"text": f"{i}: {TEXT}"}) + "\n" for i in range(40)]
    (folder / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in (
            ("tokenizer", "train", "corpus.txt", "--vocab-size", "270", "--out", "vocabulary"),
            ("data", "prepare", "corpus.jsonl", "--tokenizer", "vocabulary", "--out", "prepared",
             "--validation", "0", "--workers", "1"),
            pretrain_words("--steps", "4", "--save-every", "2", out="run"),
        ):  # fmt: skip
            assert main(words) == 0
    return folder


def pretrain_words(*flags, files="corpus.txt", out="never", tokenizer="vocabulary"):
    return ("pretrain", files, "--tokenizer", tokenizer, *SMALL, "--out", out, *flags)


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def refusal(capsys, words):
    """The one line that a command line is refused with."""
    capsys.readouterr()
    assert main(words) in (1, 2)
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ") and out == ""
    return line


def unread(monkeypatch):
    """Fail a test if texts are encoded."""

    def pack(*_):
        raise AssertionError("the texts were read")

    monkeypatch.setattr(batches, "pack", pack)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--context", "64"), "context 64 is longer than the model's 32 positions"),
        (("--micro-batches", "3"), "batch_size is 2; it must be a multiple of micro_batches, 3"),
        (("--validation", "empty.txt"), "no text in empty.txt"),
        (("--validation", "none.txt"), "none.txt cannot be read (No such file or directory)"),
        (("--patience", "2"), "patience is 2, and there is nothing to measure with"),
        (("--n-head", "3"), "n_embd 16 cannot be split into 3 heads"),
        (("--tokenizer", "stroy"), "no model 'stroy'. Did you mean 'story'?"),
        (("--from-model", "stroy"), "no model 'stroy'. Did you mean 'story'?"),
        (("--lr", "-1"), "lr is -1.0; it must be a positive number"),
        (("--export-every", "0"), "export_every is 0; it must be at least 1, or None"),
        (("--bach-size", "2"), "Unrecognized options: --bach-size"),
    ],
)
def test_a_setting_that_cannot_be_is_named_before_the_texts_are_read(
    here, capsys, monkeypatch, flags, message
):
    unread(monkeypatch)
    assert message in refusal(capsys, pretrain_words(*flags))
    assert not (here / "never").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bach_size = 2", "run.toml: no option 'bach_size'. Did you mean 'batch_size'?"),
        ("[training]\nsteps = 2", "run.toml: no option 'training'."),
        ('steps = "many"', "run.toml: steps = 'many' should be a whole number"),
        ("lr = -1.0", "lr is -1.0; it must be a positive number"),
    ],
)
def test_a_mistake_in_the_settings_file_is_named(here, capsys, tmp_path, line, message):
    (tmp_path / "run.toml").write_text(line, encoding="utf-8")
    said = refusal(capsys, pretrain_words("--config", str(tmp_path / "run.toml")))
    assert message in said and not (here / "never").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("empty.txt", "no text in empty.txt"),
        ("none.txt", "none.txt cannot be read"),
        ("tiny.txt", "tokens are too few for batches of 2 x 16: at least 49 are needed"),
    ],
)
def test_too_little_text_is_named(here, capsys, files, message):
    assert message in refusal(capsys, pretrain_words(files=files))
    assert not (here / "never").exists()


def refusal_last(capsys, words):
    """The last line of a command that has begun to speak."""
    assert main(words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


def damaged(here, tmp_path, change):
    """A copy of the prepared folder in which `change` was done to the only shard."""
    folder = tmp_path / "prepared"
    shutil.copytree(here / "prepared", folder)
    words = np.memmap(folder / "train-00000.bin", "<i4", mode="r+")
    change(words)
    words.flush()
    return str(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda words: words.__setitem__(0, 7), "is no shard of `cleangpt2 data prepare`"),
        (lambda words: words.__setitem__(4, 9), "has version 9, this program reads 1"),
        (lambda words: words.__setitem__(6, 300), "is of another vocabulary (300 ids, sha256"),
        (lambda words: words.__setitem__(16, 1), "is of another vocabulary (270 ids, sha256"),
        (lambda words: words.__setitem__(2, 5), "contradicts index.json"),
    ],
    ids=["magic", "version", "size", "vocabulary", "tokens"],
)
def test_a_shard_with_another_header_is_named(here, capsys, tmp_path, change, message):
    words = pretrain_words(files=damaged(here, tmp_path, change))
    line = refusal(capsys, words)
    assert message in line and "train-00000.bin" in line
    assert not (here / "never").exists()


def test_shards_of_another_vocabulary_are_named(here, capsys):
    line = refusal(capsys, pretrain_words(files="prepared", tokenizer="story"))
    assert "prepared holds ids of 'vocabulary' (270 ids" in line and "(4,096 ids" in line
    words = ("pretrain", "prepared", "--from-model", "tiny", "--out", "never", "--context", "16")
    assert "prepared holds ids of 'vocabulary'" in refusal(capsys, words)


def test_a_validation_text_smaller_than_a_batch_is_measured_all_the_same(here, tmp_path):
    words = pretrain_words("--steps", "2", "--validation", "tiny.txt", out=str(tmp_path / "run"))
    assert main(words) == 0
    assert '"bits_per_byte": ' in (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--n-layer", "2"), "n_layer was 1, now 2"),
        (("--n-embd", "32", "--n-positions", "16"), "n_positions was 32, now 16; n_embd was 16"),
        (("--tokenizer", "story"), "vocab_size was 270, now 4096"),
        (("--optimizer", "adamw"), "optimizer was 'muon', now 'adamw'"),
    ],
)
def test_a_checkpoint_of_another_model_is_named_even_where_settings_may_change(
    here, capsys, monkeypatch, flags, message
):
    unread(monkeypatch)
    words = pretrain_words("--steps", "9", "--change-settings", *flags, out="run")
    assert f"run holds a run that cannot go on like this ({message}" in refusal(capsys, words)


def test_changed_settings_are_named_before_the_texts_are_read_and_then_on_purpose(
    here, capsys, monkeypatch, tmp_path
):
    shutil.copytree(here / "run", tmp_path / "run")
    out = str(tmp_path / "run")
    words = pretrain_words("--steps", "9", "--lr", "0.5", "--clip", "2", out=out)
    with monkeypatch.context() as patch:
        unread(patch)
        line = refusal(capsys, words)
    assert "other settings (clip was 1.0, now 2.0, lr was 0.001, now 0.5)" in line
    assert "--change-settings" in line
    assert main((*words, "--change-settings")) == 0
    said = capsys.readouterr().err
    told = "steps 4 -> 9, clip 1.0 -> 2.0, save_every 2 -> 250, lr 0.001 -> 0.5"
    assert "step 4/9  goes on from its checkpoint" in said
    assert f"step 4/9  changed settings: {told}" in said
    report = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert report.count(told.replace(">", "&gt;")) == 2  # in the notes and beside the settings
    lineage = json.loads((tmp_path / "run/model/lineage.json").read_text(encoding="utf-8"))
    assert lineage["settings"]["bytes"] == (tmp_path / "run/config.json").stat().st_size


def test_other_texts_are_named(here, capsys):
    words = pretrain_words("--steps", "9", files="corpus.jsonl", out="run")
    line = refusal_last(capsys, words)
    assert "other settings (steps was" not in line
    assert "run holds a run with other settings (data was" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--n-layer", "2"), "--n-layer 2 contradicts --from-model tiny, whose n_layer is 4"),
        (("--n-positions", "64"), "--n-positions 64 contradicts --from-model tiny, whose n_pos"),
        (("--tokenizer", "vocabulary"), "--tokenizer vocabulary contradicts --from-model tiny"),
        (("--context", "513"), "context 513 is longer than the model's 512 positions"),
    ],
)
def test_what_contradicts_the_model_to_begin_with_is_named(
    here, capsys, monkeypatch, flags, message
):
    unread(monkeypatch)
    words = ("pretrain", "corpus.txt", "--from-model", "tiny", "--out", "never", *flags)
    assert message in refusal(capsys, words)
    assert not (here / "never").exists()


def test_a_run_never_replaces_the_model_that_it_begins_with(here, capsys):
    words = ("pretrain", "corpus.txt", "--from-model", "run/model", "--out", "run", "--fresh")
    line = refusal(capsys, (*words, "--context", "16"))
    assert "--from-model run/model lies in the run folder" in line
    assert (here / "run/model/model.safetensors").is_file()


def test_tensorboard_that_is_missing_is_named(here, capsys, monkeypatch):
    unread(monkeypatch)
    monkeypatch.setattr(track, "find_spec", lambda _: None)
    line = refusal(capsys, pretrain_words("--tensorboard"))
    assert "pip install 'cleangpt2[track]'" in line and not (here / "never").exists()


@pytest.mark.slow
def test_processes_that_do_not_divide_the_batch_are_named_once(here):
    """And of a mistake that all of them find, one speaks."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3")
    done = run_python(*torchrun, "-m", "cleangpt2", *pretrain_words(), cwd=here, timeout_s=240)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(lines) == 1
    assert "a batch of 2 sequences cannot be shared evenly by 3 processes" in lines[0]
    assert not (here / "never").exists()


@pytest.mark.slow
def test_two_processes_train_and_one_of_them_speaks_and_writes(here, tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    words = pretrain_words("--steps", "4", "--export-every", "2", out=str(tmp_path / "run"))
    done = run_python(*torchrun, "-m", "cleangpt2", *words, cwd=here, timeout_s=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done; try: ") == done.stdout.count("a new model of ") == 1
    assert done.stderr.count("step 4/4") == 1
    alone = rows(here / "run/metrics.jsonl")
    assert rows(tmp_path / "run/metrics.jsonl") == [
        {name: pytest.approx(value, rel=1e-4) for name, value in row.items()} for row in alone
    ]
    assert (tmp_path / "run/model/lineage.json").is_file()
    assert len(list((tmp_path / "run/exports").iterdir())) == 2


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
