"""Several processes train as one does: the same losses, from and to any number of them."""

import dataclasses
import json
import os
import pickle
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from cleangpt2.errors import CheckpointError
from cleangpt2.training import checkpoint
from cleangpt2.training.pretrain import pretrain
from cleangpt2.training.validation import held_out_bits_per_byte
from tests.helpers import run_python
from tests.training import world
from tests.training.runs import TOKENS, WITHOUT_DROPOUT, weights

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs signals and forks"),
]


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def losses(folder):
    return [row["loss"] for row in rows(folder) if "loss" in row]


def launch(folder, processes):
    """Let a world do its checks; what each of its processes has seen."""
    done = run_python(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
        str(HERE / "world.py"), str(folder),
        env={"OMP_NUM_THREADS": "1"}, timeout_s=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The runs of one process."""
    folder = tmp_path_factory.mktemp("one")
    for name, changes in world.RUNS.items():
        config = dataclasses.replace(world.BASE, **changes)
        model = pretrain(WITHOUT_DROPOUT, config, TOKENS, folder / name)
        torch.save(weights(model), folder / name / "weights.pt")
    world.died(folder / "died", world.BASE)
    return folder


@pytest.fixture(scope="module")
def two(one, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(one / "died", folder / "given" / "one")
    return folder, launch(folder, 2)


@pytest.fixture(scope="module")
def four(two, tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    for way in world.WAYS:
        shutil.copytree(two[0] / f"died-{way}", folder / "given" / way)
    return folder, launch(folder, 4)


def seen(world, check):
    """What the processes of a world saw in a check, by rank."""
    return [process[check] for process in world[1]]


# --- the same training ---------------------------------------------------------------------------


@pytest.mark.parametrize("processes", ["two", "four"])
@pytest.mark.parametrize("way", world.WAYS)
@pytest.mark.parametrize("name", world.RUNS)
def test_losses_are_those_of_one_process(one, request, processes, way, name):
    folder, _ = request.getfixturevalue(processes)
    alone, shared = one / name, folder / f"{way}-{name}"
    assert losses(shared) == pytest.approx(losses(alone), rel=1e-5)
    norms = [[row["grad_norm"] for row in rows(place)] for place in (alone, shared)]
    ends = [torch.load(place / "weights.pt") for place in (alone, shared)]
    # Muon rounds to bfloat16 on its way: what falls to the other side there is off by 2**-8.
    assert norms[1] == pytest.approx(norms[0], rel=1e-3 if name == "muon" else 1e-5)
    torch.testing.assert_close(*ends, rtol=0, atol=2e-4 if name == "muon" else 1e-5)


def test_muon_on_shards_takes_the_steps_of_torchs(two):
    for differences in seen(two, "moves_as_torch_does"):
        assert len(differences) == 6 and max(differences) < 1e-6


def test_gradients_are_exchanged_at_the_last_micro_batch_alone(two):
    first, second = seen(two, "waits")
    assert first["ddp False"] != second["ddp False"] and first["ddp True"] == second["ddp True"]
    assert first["fsdp False"] is second["fsdp False"] is None
    assert first["fsdp True"] == pytest.approx(first["ddp True"], rel=1e-5)


# --- taken up again ------------------------------------------------------------------------------


def test_a_run_goes_on_in_more_processes_and_either_way(one, two, four):
    expected = torch.load(one / "muon" / "weights.pt")
    ends = {**seen(two, "goes_on")[0], **seen(four, "goes_on")[0]}
    names = {"one-to-ddp", "one-to-fsdp"} | {f"{a}-to-{b}" for a in world.WAYS for b in world.WAYS}
    assert set(ends) == names
    for name, end in ends.items():
        torch.testing.assert_close(torch.tensor(end), expected, rtol=0, atol=2e-4, msg=name)
    for folder in (two[0] / "one-to-fsdp", four[0] / "fsdp-to-ddp"):
        assert losses(folder) == pytest.approx(losses(one / "muon"), rel=1e-5)


@pytest.mark.parametrize("way", world.WAYS)
def test_a_run_of_two_goes_on_in_one(one, two, tmp_path, way):
    shutil.copytree(two[0] / f"died-{way}", tmp_path / "run")
    assert checkpoint.newest(tmp_path / "run/checkpoints")["step"] == 5
    model = pretrain(WITHOUT_DROPOUT, world.BASE, TOKENS, tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(one / "muon"), rel=1e-5)
    expected = torch.load(one / "muon" / "weights.pt")
    torch.testing.assert_close(weights(model), expected, rtol=0, atol=2e-4)


def test_dropout_is_other_noise_in_each_step_and_process(two):
    first, second = seen(two, "draws")
    assert len({*first, *second}) == 4


def test_as_many_processes_as_before_end_with_the_same_bits_though_rows_are_dropped_out(two):
    assert seen(two, "comes_back_exactly") == [{"ddp": True, "fsdp": True}] * 2


def test_a_sharded_checkpoint_holds_what_a_whole_one_does(two):
    states = [checkpoint.newest(two[0] / f"died-{way}" / "checkpoints") for way in world.WAYS]
    whole, shards = states
    for name, tensor in whole["model"].items():
        torch.testing.assert_close(shards["model"][name], tensor, rtol=0, atol=2e-4)
    for one, other in zip(whole["optimizers"], shards["optimizers"], strict=True):
        assert one["param_groups"] == other["param_groups"]
        for number, values in one["state"].items():
            assert values.keys() == other["state"][number].keys()
            assert all(v.shape == other["state"][number][k].shape for k, v in values.items())
    assert whole["guard"].keys() == shards["guard"].keys() and shards["step"] == 5


# --- what the run does besides -------------------------------------------------------------------


@pytest.mark.parametrize("way", world.WAYS)
def test_measurements_samples_exports_and_the_best_are_those_of_one(two, tmp_path, way):
    folder = two[0] / f"measured-{way}"
    alone = world.measured_run(tmp_path, world.MEASURED)
    bits = [[row["bits_per_byte"] for row in rows(f) if "bits_per_byte" in row]
            for f in (tmp_path, folder)]  # fmt: skip
    assert bits[1] == pytest.approx(bits[0], abs=1e-4) and len(bits[1]) == len(bits[0]) > 2
    assert "stopped_early" in rows(folder)[-1]
    expected = held_out_bits_per_byte(alone, world.vocabulary(), world.TEXTS)
    for best in seen(two, "measures"):
        assert best[way] == pytest.approx(expected, rel=1e-5)
    texts = [(f / "samples.jsonl").read_text(encoding="utf-8") for f in (tmp_path, folder)]
    assert texts[0] == texts[1] and len(texts[0].splitlines()) >= 3
    exports = [torch.load(f / "exports/step-0000005/weights.pt") for f in (tmp_path, folder)]
    torch.testing.assert_close(*exports, rtol=0, atol=1e-5)


def test_each_line_is_logged_once(two):
    for way in world.WAYS:
        assert [row["step"] for row in rows(two[0] / f"{way}-muon")] == list(range(10))


# --- agreement -----------------------------------------------------------------------------------


def test_processes_agree(two):
    first, second = seen(two, "agrees")
    assert first["sum"] == second["sum"] == 3
    assert first["any"] == second["any"] == [True, False]
    assert first["broadcast"] == second["broadcast"] == [0, {"of": 1}]
    assert first["gather"] == second["gather"] == ["a", "b"]
    assert (first["on_main"], second["on_main"]) == ([0], [])
    assert first["random"] != second["random"]


def test_an_error_of_one_process_is_an_error_of_all_and_told_by_one(two):
    first, second = seen(two, "agrees")
    none, of_first, of_second, of_both = zip(first["together"], second["together"], strict=True)
    assert none == (None, None)
    assert of_first == of_both == (["ConfigError", "of 0", False], ["ConfigError", "of 0", True])
    assert of_second == (["ConfigError", "of 1", True], ["ConfigError", "of 1", False])


def test_refusals_come_before_any_work_and_are_told_once(two):
    folder, (first, second) = two[0], seen(two, "refuses")
    assert "9 sequences cannot be shared evenly by 2 processes in 3 micro" in first["uneven"][1]
    assert not (folder / "uneven").exists()
    assert "is finished after 10 steps" in first["finished"][1]
    assert "process 1 of 2 does not see" in second["unseen"][1]
    for name in ("uneven", "finished", "unseen"):
        assert first[name][:2] == second[name][:2]
        assert {first[name][2], second[name][2]} == {False, True}


@pytest.mark.parametrize("way", world.WAYS)
def test_a_signal_to_one_process_lets_all_save_and_stop(one, two, tmp_path, way):
    first, second = seen(two, "stops")
    assert first[way] == ["Stopped", "stopped after step 4, saved; run it again to go on", False]
    assert second[way] == [*first[way][:2], True]
    shutil.copytree(two[0] / f"stopped-{way}", tmp_path / "run")
    assert checkpoint.newest(tmp_path / "run/checkpoints")["step"] == 4
    pretrain(WITHOUT_DROPOUT, world.BASE, TOKENS, tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(one / "muon"), rel=1e-5)


@pytest.mark.parametrize("way", world.WAYS)
def test_a_loss_lost_in_one_process_is_skipped_by_all(two, way):
    skipped = [row["step"] for row in rows(two[0] / f"skips-{way}") if "skipped" in row]
    assert skipped == [2, 4, 5]
    assert all(finite[way] for finite in seen(two, "skips"))
    first, second = (told["given up"] for told in seen(two, "skips"))
    assert first[0] == "TrainingError" and "2 steps in a row" in first[1]
    assert (first[2], second[2]) == (False, True)
    assert (two[0] / "given-up" / "skipped.npz").exists()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_an_overflow_in_one_shard_lowers_the_scale_of_all(two, optimizer):
    folder = two[0] / f"overflows-{optimizer}"
    assert [row["step"] for row in rows(folder) if "skipped" in row] == [3]
    # Written by the first process, whose own shard was finite.
    assert checkpoint.newest(folder / "checkpoints")["scaler"]["scale"] == 2.0**15


# --- sharded checkpoints -------------------------------------------------------------------------


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_is_full_for_one_process_ends_all_and_costs_no_checkpoint(two, background):
    folder = two[0] / f"full-{background}"
    first, second = (told[folder.name] for told in seen(two, "fills_the_disk"))
    assert "step-0000010 cannot be written: File too large (process 1); make room" in first[1]
    assert (first[2], second[2]) == (False, True)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-0000005"]
    assert checkpoint.newest(folder / "checkpoints")["step"] == 5


@pytest.mark.parametrize("name", ["__1_0.distcp", ".metadata", "state.pt"])
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_damage_to_any_file_is_detected_and_the_checkpoint_before_used(two, tmp_path, name, how):
    shutil.copytree(two[0] / "fsdp-muon" / "checkpoints", tmp_path / "checkpoints")
    assert checkpoint.newest(tmp_path / "checkpoints")["step"] == 10
    file = tmp_path / "checkpoints" / "step-0000010" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    if how == "gone":
        file.unlink()
    assert checkpoint.newest(tmp_path / "checkpoints")["step"] == 5


class Mischief:
    def __reduce__(self):
        return os.mkdir, ("mischief",)


@pytest.mark.parametrize("name", [".metadata", "state.pt"])
def test_no_code_runs_when_a_strangers_checkpoint_is_read(two, tmp_path, monkeypatch, name):
    """Its checksums are right: whoever can write the files can write those, too."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "step-0000005"
    shutil.copytree(two[0] / "died-fsdp" / "checkpoints" / place.name, place)
    if name == ".metadata":
        (place / name).write_bytes(pickle.dumps(Mischief()))
    else:
        torch.save(Mischief(), place / name)
    names = [path.name for path in place.iterdir() if path.name != checkpoint.CHECKSUM]
    sums = [f"{sha256((place / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (place / checkpoint.CHECKSUM).write_text("".join(sums), encoding="utf-8")
    with pytest.raises(CheckpointError, match="none that this program has written.*remove it"):
        checkpoint.newest(tmp_path)
    assert not (tmp_path / "mischief").exists()
