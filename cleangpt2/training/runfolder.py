"""The folder of a run: whose it is, and whether this call may go on in it.

``config.json`` names the run; a folder of another run, or of one that is finished, is refused, so
that no result is ever overwritten by accident.
"""

import dataclasses
import json
import shutil
from pathlib import Path

from cleangpt2.errors import ConfigError, TrainingError
from cleangpt2.files import written_aside
from cleangpt2.model.config import GPT2Config
from cleangpt2.training.config import PretrainConfig

# What a run writes; nothing else in its folder is ever removed.
CONFIG, METRICS, CHECKPOINTS, MODEL = "config.json", "metrics.jsonl", "checkpoints", "model"
SAMPLES, SPEED, SKIPPED = "samples.jsonl", "speed.jsonl", "skipped.npz"
REPORT = "report.html"

# Settings that may differ when a run is taken up again: those of the learning rate as long as it
# was the same so far (see `check_resume`), and what leaves the weights as they are.
SCHEDULE = ("steps", "schedule", "decay", "final_lr")
MAY_CHANGE = {
    *SCHEDULE,
    "micro_batches", "recompute", "compile",  # the same up to rounding
    "eval_every", "patience", "sample_every", "save_every", "keep", "keep_best",
    "background_saves", "max_skips",
}  # fmt: skip


def check_owner(folder: Path, model: GPT2Config, training: PretrainConfig) -> PretrainConfig:
    """The settings with which `folder` was trained so far; `training` where nothing was.

    Raises:
        ConfigError: The folder is of another run.
    """
    there = _read(folder)
    if there is None or not any((folder / name).exists() for name in (CHECKPOINTS, MODEL)):
        return training  # a run that stopped before its first checkpoint binds nobody
    changed = [
        f"{key} was {there[part].get(key)!r}, now {value!r}"
        for part, values in _settings(model, training).items()
        for key, value in values.items()
        if there[part].get(key) != value and key not in MAY_CHANGE
    ]
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}): "
            "give another folder, the old settings to go on, or --fresh to start anew"
        )
    return PretrainConfig(**there["training"])


def check_resume(
    folder: Path, before: PretrainConfig, now: PretrainConfig, step: int, *, stopped_early: bool
) -> None:
    """Refuse to go on at `step` if the run is over or its past would have been another.

    Raises:
        TrainingError: All steps are done or it has stopped early, and the model is written.
        ConfigError: The new settings change the learning rate of steps already taken.
    """
    if (step >= now.steps or stopped_early) and (folder / MODEL).exists():
        raise TrainingError(
            f"the run in {folder} is finished after {step} steps, its model is in "
            f"{folder / MODEL}: give another folder, or --fresh to start anew"
        )
    if any(before.lr_scale(past) != now.lr_scale(past) for past in range(step)):
        changes = ", ".join(
            f"{name} {getattr(before, name)} -> {getattr(now, name)}"
            for name in SCHEDULE
            if getattr(before, name) != getattr(now, name)
        )
        raise ConfigError(
            f"{folder} has trained {step} steps, some of them with another learning rate than the "
            f"new settings call for ({changes}): give another folder, or the old settings"
        )


def claim(folder: Path, model: GPT2Config, training: PretrainConfig) -> None:
    """Create the folder and write whose it is.

    Raises:
        OutputError: It cannot be written.
    """
    with written_aside(folder) as scratch:
        text = json.dumps(_settings(model, training), indent=2)
        (scratch / CONFIG).write_text(text + "\n", encoding="utf-8")


def remove(folder: Path) -> None:
    """Delete what a run has written in `folder`, and nothing else there.

    Raises:
        ConfigError: The folder holds the ``config.json`` of something else.
    """
    if _read(folder) is None:
        return
    for name in (CHECKPOINTS, MODEL):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (METRICS, SAMPLES, SPEED, SKIPPED, REPORT):
        (folder / name).unlink(missing_ok=True)
    (folder / CONFIG).unlink()  # last, so that what is left of a run can still be told for one


def _read(folder: Path) -> dict[str, dict] | None:
    """What a run's ``config.json`` says; ``None`` where there is none."""
    path = folder / CONFIG
    if not path.exists():
        return None
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        PretrainConfig(**there["training"])
        return {part: dict(there[part]) for part in ("model", "training")}
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{path} is not of a pretraining run and is left alone: give another folder"
        ) from None


def _settings(model: GPT2Config, training: PretrainConfig) -> dict[str, dict]:
    return {"model": model.to_dict(), "training": dataclasses.asdict(training)}
