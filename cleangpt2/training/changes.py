"""Whether a call may go on with the run that its folder holds, and what it would change.

A run that is taken up again ends as if it had never stopped. So whatever would make it another
run is refused by name: a folder of a finished run or of another model, and other settings or data,
unless they are changed on purpose. No result is ever overwritten by accident.
"""

import dataclasses
from pathlib import Path
from typing import Any

from cleangpt2.data.batches import Tokens
from cleangpt2.errors import ConfigError, FinishedError
from cleangpt2.model.config import GPT2Config
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.training import fingerprint
from cleangpt2.training.runfolder import CHECKPOINTS, MODEL, Record, read
from cleangpt2.training.settings import TrainingConfig

# Settings that may differ: those of the learning rate as long as it was the same so far (see
# `check_resume`), and what leaves the weights as they are.
SCHEDULE = ("steps", "epochs", "schedule", "decay", "final_lr")
FREE = {
    *SCHEDULE,
    "micro_batches", "recompute", "compile", "sharding",  # the same up to rounding
    "eval_every", "patience", "sample_every", "save_every", "keep", "keep_best",
    "background_saves", "max_skips", "export_every", "tensorboard",
}  # fmt: skip

# Of the model's configuration what is no part of its shape.
_DROPOUT = {"resid_pdrop", "embd_pdrop", "attn_pdrop"}


def record_of(
    model: GPT2Config,
    training: TrainingConfig,
    start_from: GPT2 | None,
    tokens: Tokens | None = None,
) -> Record:
    """The record of a call; without the data where they are not read yet."""
    return Record(
        model=model.to_dict(),
        training=training,
        data=None if tokens is None else fingerprint.of_tokens(tokens),
        start_from=None if start_from is None else fingerprint.of_weights(start_from),
    )


def check_owner(folder: Path, now: Record, *, may_change: bool = False) -> Record:
    """The record of the run that `folder` holds; `now` where nothing was trained yet.

    Args:
        may_change: Let settings and data differ. What the checkpoints do not fit stays refused.

    Raises:
        ConfigError: The folder is of another run.
    """
    there = read(folder, type(now.training))
    if there is None or not any((folder / name).exists() for name in (CHECKPOINTS, MODEL)):
        return now  # a run that stopped before its first checkpoint binds nobody
    if other := [*_other_model(there, now)]:
        raise ConfigError(
            f"{folder} holds a run that cannot go on like this ({'; '.join(other)}): give another "
            "folder (--from-model begins there with this model's weights), or --fresh to start anew"
        )
    refused = {name: how for name, how in _differences(there, now).items() if name not in FREE}
    if refused and not may_change:
        raise ConfigError(
            f"{folder} holds a run with other settings ({_listed(refused, 'was {}, now {}')}): "
            "give the old ones to go on with it, --change-settings to go on with the new ones, "
            "another folder, or --fresh to start anew"
        )
    return there


def check_resume(
    folder: Path,
    before: TrainingConfig,
    now: TrainingConfig,
    step: int,
    *,
    stopped_early: bool,
    may_change: bool = False,
) -> None:
    """Refuse to go on at `step` if the run is over or its past would have been another.

    Raises:
        FinishedError: All steps are done or it has stopped early, and the model is written.
        ConfigError: The new settings change the learning rate of steps already taken.
    """
    if (step >= now.steps or stopped_early) and (folder / MODEL).exists():
        raise FinishedError(
            f"the run in {folder} is finished after {step} steps, its model is in "
            f"{folder / MODEL}: give another folder, or --fresh to start anew"
        )
    if may_change:
        return
    if any(before.lr_scale(past) != now.lr_scale(past) for past in range(step)):
        changes = ", ".join(
            f"{name} {getattr(before, name)} -> {getattr(now, name)}"
            for name in SCHEDULE
            if getattr(before, name, None) != getattr(now, name, None)
        )
        raise ConfigError(
            f"{folder} has trained {step} steps, some of them with another learning rate than the "
            f"new settings call for ({changes}): give the old settings, --change-settings to go on "
            "with the new ones, or another folder"
        )


def change(before: Record, now: Record, step: int) -> tuple[Record, str]:
    """The record of a run that goes on after `step` steps, and what has changed, in words."""
    told = _listed(_differences(before, now), "{} -> {}") if step else ""
    changes = before.changes
    if told:
        when = f"after step {step}"
        changes = changes | {when: "; ".join(filter(None, [changes.get(when), told]))}
    return dataclasses.replace(now, changes=changes), told


def shape_differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What keeps the weights of one model from being those of the other: key -> both values.

    Args:
        one: A model's ``config.json``.
        other: Another one.
    """
    return {
        key: (one.get(key), value)
        for key, value in other.items()
        if one.get(key) != value and key not in _DROPOUT
    }


def check_shape(given: GPT2Config, wanted: GPT2Config) -> None:
    """Refuse to begin with the weights of a model of another shape.

    Raises:
        ConfigError: They are not of the shape that is to be trained.
    """
    if other := shape_differences(given.to_dict(), wanted.to_dict()):
        listed = ", ".join(f"{key} {old!r}, not {new!r}" for key, (old, new) in other.items())
        raise ConfigError(
            f"the model to start from has {listed}: train one of its shape, or give another model"
        )


def _other_model(there: Record, now: Record) -> list[str]:
    """What a checkpoint does not fit: another shape, another beginning, another optimiser."""
    found = [
        f"{key} was {old!r}, now {new!r}"
        for key, (old, new) in shape_differences(there.model, now.model).items()
    ]
    if there.start_from != now.start_from:
        found.append(
            f"it began with {_began(there.start_from)} weights, now {_began(now.start_from)}"
        )
    for name in now.training.remembered:
        old, new = (getattr(record.training, name) for record in (there, now))
        if old != new:
            found.append(
                f"{name} was {old!r}, now {new!r}, and neither can use what the other remembers"
            )
    return found


def _began(fingerprint: str | None) -> str:
    return "newly drawn" if fingerprint is None else f"a model's ({fingerprint})"


def _differences(there: Record, now: Record) -> dict[str, tuple[Any, Any]]:
    """Name -> the old and the new value of every setting, and of the data."""
    pairs = {
        name: (getattr(there.training, name), getattr(now.training, name))
        for name in (field.name for field in dataclasses.fields(now.training))
    } | {name: (there.model.get(name), now.model[name]) for name in sorted(_DROPOUT)}
    if there.data is not None and now.data is not None:
        pairs["data"] = (there.data, now.data)
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def _listed(pairs: dict[str, tuple[Any, Any]], form: str) -> str:
    """The differences in one line: ``lr 0.001 -> 0.0005``."""
    return ", ".join(f"{name} {form.format(old, new)}" for name, (old, new) in pairs.items())
