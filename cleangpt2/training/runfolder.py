"""The folder of a run: what lies in it, and ``config.json``, which says whose it is."""

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cleangpt2.errors import ConfigError
from cleangpt2.files import written_aside
from cleangpt2.training.config import PretrainConfig
from cleangpt2.training.settings import TrainingConfig

# What a run writes; nothing else in its folder is ever removed.
CONFIG, METRICS, CHECKPOINTS, MODEL = "config.json", "metrics.jsonl", "checkpoints", "model"
SAMPLES, SPEED, SKIPPED = "samples.jsonl", "speed.jsonl", "skipped.npz"
REPORT, EXPORTS, TENSORBOARD, ADAPTER = "report.html", "exports", "tensorboard", "adapter"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The content of ``config.json``: what makes a run this run and no other."""

    model: dict[str, Any]
    """The model's own ``config.json``."""
    training: TrainingConfig
    data: str | None = None
    """Fingerprint of the tokens; None where an earlier version wrote none."""
    start_from: str | None = None
    """Fingerprint of the weights it began with; None where they were drawn."""
    changes: dict[str, str] = field(default_factory=dict)
    """When settings were changed on the way, and which."""


def read(folder: Path, kind: type[TrainingConfig] = PretrainConfig) -> Record | None:
    """The record of a run; ``None`` where there is no ``config.json``.

    Args:
        folder: The run folder.
        kind: The settings of the trainer whose run it should be.

    Raises:
        ConfigError: It is that of something else.
    """
    path = folder / CONFIG
    if not path.exists():
        return None
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        known = {key: there[key] for key in ("data", "start_from") if there.get(key)}
        return Record(
            model=dict(there["model"]),
            training=kind(**{name: _setting(value) for name, value in there["training"].items()}),
            changes=dict(there.get("changes", {})),
            **known,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"{path} is not of a {kind.kind} run and is left alone: give another folder"
        ) from None


def claim(folder: Path, record: Record) -> None:
    """Create the folder and write whose it is.

    Raises:
        OutputError: It cannot be written.
    """
    content = {key: value for key, value in dataclasses.asdict(record).items() if value}
    with written_aside(folder) as scratch:
        text = json.dumps(content, indent=2)
        (scratch / CONFIG).write_text(text + "\n", encoding="utf-8")


def remove(folder: Path, kind: type[TrainingConfig] = PretrainConfig) -> None:
    """Delete what a run has written in `folder`, and nothing else there.

    Raises:
        ConfigError: The folder holds the ``config.json`` of something else.
    """
    if read(folder, kind) is None:
        return
    for name in (CHECKPOINTS, MODEL, ADAPTER, EXPORTS, TENSORBOARD):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (METRICS, SAMPLES, SPEED, SKIPPED, REPORT):
        (folder / name).unlink(missing_ok=True)
    (folder / CONFIG).unlink()  # last, so that what is left of a run can still be told for one


def _setting(value: Any) -> Any:
    """A value as it was before it became JSON, which knows no tuples."""
    return tuple(value) if isinstance(value, list) else value
