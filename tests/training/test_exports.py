import dataclasses

import pytest
import torch

from cleangpt2.errors import OutputError
from cleangpt2.model.pretrained import load_model, save
from cleangpt2.training import exports
from cleangpt2.training.pretrain import pretrain
from tests.training.runs import CONFIG, MODEL, TOKENS, Killed, die_at, weights

EXPORTING = dataclasses.replace(CONFIG, export_every=4)


def export_model(model, folder):
    save(model, None, folder, made_by="pretrain")


def names(folder):
    return sorted(path.name for path in (folder / "exports").iterdir())


def test_exports_come_on_schedule_and_change_nothing(tmp_path, monkeypatch):
    plain = pretrain(MODEL, CONFIG, TOKENS, tmp_path / "plain")
    seen = []

    def export(model, folder):
        seen.append(weights(model))
        export_model(model, folder)

    model = pretrain(MODEL, EXPORTING, TOKENS, tmp_path / "run", export=export)
    assert torch.equal(weights(plain), weights(model))
    assert names(tmp_path / "run") == [f"step-00000{n:02}" for n in (4, 8, 12, 16, 20)]
    exported = load_model(tmp_path / "run/exports/step-0000012", device="cpu")
    assert torch.equal(weights(exported), seen[2])
    assert not torch.equal(seen[2], seen[4])
    pretrain(MODEL, CONFIG, TOKENS, tmp_path / "run", fresh=True)
    assert not (tmp_path / "run/exports").exists()


def test_a_run_that_died_while_exporting_leaves_no_half_model(tmp_path, monkeypatch):
    def dying(model, folder):
        (folder / "config.json").write_text("{}")
        if folder.name.endswith("08"):
            raise Killed
        export_model(model, folder)

    with pytest.raises(Killed):
        pretrain(MODEL, EXPORTING, TOKENS, tmp_path, export=dying)
    assert names(tmp_path) == ["step-0000004"]
    pretrain(MODEL, EXPORTING, TOKENS, tmp_path, export=export_model)
    assert len(names(tmp_path)) == 5


def test_exports_of_lost_steps_are_replaced(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at(patch, 9)
        pretrain(MODEL, EXPORTING, TOKENS, tmp_path, export=export_model)
    (tmp_path / "exports/step-0000008/config.json").write_text("{")  # it resumes from step 5
    pretrain(MODEL, EXPORTING, TOKENS, tmp_path, export=export_model)
    load_model(tmp_path / "exports/step-0000008", device="cpu")


def test_a_full_disk_costs_one_line_and_no_earlier_export(tmp_path, monkeypatch):
    model = pretrain(MODEL, dataclasses.replace(CONFIG, steps=1), TOKENS, tmp_path / "run")
    exports.write(tmp_path / "exports", 4, model, export_model)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="step-0000008 cannot be written: No space left"):
        exports.write(tmp_path / "exports", 8, model, full_disk)
    assert names(tmp_path) == ["step-0000004"]
