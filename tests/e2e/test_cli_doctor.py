"""``cleangpt2 doctor`` as a person meets it, and as a script does."""

import json

import pytest

from cleangpt2.cli import main as cli
from cleangpt2.doctor import devices
from cleangpt2.model.pretrained import save
from cleangpt2.model.selfcheck import Verdict
from tests import fake_hub
from tests.helpers import run_cli
from tests.stubs import random_model, small_tokenizer


@pytest.fixture
def folder(tmp_path):
    tokenizer = small_tokenizer()
    save(random_model(tokenizer.vocab_size), tokenizer, tmp_path / "little")
    return tmp_path / "little"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in this process with a self-check that takes no time."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    seen = []

    def check(device, dtype, *, fresh):
        seen.append(fresh)
        return Verdict(device=device, dtype=dtype, path="causal", seconds=0.1)

    monkeypatch.setattr(devices, "check_device", check)

    def run(*words):
        code = cli.main(["doctor", *words])
        return code, *capsys.readouterr()

    run.fresh = seen
    return run


def test_a_sound_machine_is_told_so_and_that_gpt2_was_not_run(run):
    code, out, err = run("--device", "cpu")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    for section in ("environment", "devices", "memory", "model", "published outputs"):
        assert section in lines
    assert any(line.startswith("  not run  gpt2: the weights of gpt2 are not") for line in lines)
    assert not any(line.startswith("  failed") for line in lines)
    assert lines[-1] == "everything is fine"


def test_a_damaged_file_is_named_with_what_to_do_and_exit_code_1(run, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    code, out, err = run(str(folder), "--device", "cpu")
    assert (code, err) == (1, "")
    assert "  failed   lineage: model.safetensors has" in out
    last = out.splitlines()[-1]
    assert last.startswith("2 checks failed; begin with lineage: model.safetensors: delete the")


def test_json_is_all_there_is_on_standard_output(run, folder):
    code, out, err = run(str(folder), "--device", "cpu", "--json")
    report = json.loads(out)
    assert (code, err, report["ok"]) == (0, "", True)
    keys = {"section", "subject", "verdict", "detail", "advice"}
    assert all(set(finding) == keys for finding in report["findings"])
    assert {f["verdict"] for f in report["findings"]} <= {"ok", "warning", "not run"}
    (folder / "merges.txt").unlink()
    code, out, _ = run(str(folder), "--device", "cpu", "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (1, False)
    assert "begin with" in report["summary"]


def test_fresh_checks_the_devices_again(run):
    run("--device", "cpu")
    assert run.fresh == [False] * 3
    run("--device", "cpu", "--fresh")
    assert run.fresh[3:] == [True] * 3


def test_verdicts_are_coloured_where_colour_is_welcome(run, folder, monkeypatch):
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    (folder / "merges.txt").unlink()
    _, out, _ = run(str(folder), "--device", "cpu")
    assert "\x1b[32mok      \x1b[0m" in out
    assert "\x1b[31mfailed  \x1b[0m" in out


def test_a_name_that_means_nothing_costs_one_line_and_no_traceback(run):
    code, out, err = run("strory", "--device", "cpu")
    assert (code, err) == (1, "")
    assert "Did you mean 'story'?" in out.splitlines()[-1]


@pytest.mark.slow
def test_a_model_of_the_hub_is_downloaded_and_checked_by_its_hashes(folder, tmp_path):
    with fake_hub.serve() as hub:
        hub.add_folder("me/little", folder)
        words = ("doctor", "me/little", "--device", "cpu", "--json")
        done = run_cli(*words, env=hub.env(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = {f["subject"]: f for f in json.loads(done.stdout)["findings"]}
    if found["published hashes"]["verdict"] == "ok":  # else a system without links
        assert "model.safetensors" in found["published hashes"]["detail"]
    assert found["numbers"]["verdict"] == found["round trip"]["verdict"] == "ok"


@pytest.mark.slow
def test_the_real_command_examines_this_machine():
    done = run_cli("doctor", "tiny", "--device", "cpu", "--fresh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "computes rightly, attention path 'causal'" in done.stdout
    assert "Traceback" not in done.stderr
