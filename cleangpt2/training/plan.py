"""What a run will take: memory, time and disk, from a short measurement of a part of it.

Two ways meet here. Sizes are known exactly, so memory is the measured peak plus what
``arithmetic.py`` says the rest takes on top. Speed is not, so time is measured twice, with one
layer and with several, and what a layer adds is added for those that are missing; it grows with
the sequences.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from cleangpt2.errors import TrainingError
from cleangpt2.model.summary import show_bytes
from cleangpt2.training.arithmetic import flops_per_token
from cleangpt2.training.cost import Cost
from cleangpt2.training.footprint import room
from cleangpt2.training.measure import Measured, Seconds, measure

SHARE = 0.9
"""Of the memory that is free, what a plan may fill: predictions err, and others want some too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One way to divide a batch."""

    micro_batches: int
    rows: int
    """Sequences at once."""
    peak_bytes: int
    fits: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run will take."""

    cost: Cost
    measured: Measured
    peak_bytes: int
    """The most memory of the process (of its tensors, on a graphics card)."""
    room_bytes: int | None
    """What there is, of which a plan fills `SHARE`."""
    step_s: float
    """One optimiser step, with what is read and sampled for it."""
    tokens_per_s: float
    """That are learned from."""
    validation_s: float
    """All measurements on held-out text, about."""
    total_s: float
    """All steps and validations; not reading the text, samples and checkpoints."""
    checkpoint_bytes: int
    choices: tuple[Choice, ...]
    """Ways to divide the batch, the fewest micro-batches first."""

    @property
    def proposed(self) -> int:
        """The fewest micro-batches that fit."""
        return next(choice.micro_batches for choice in self.choices if choice.fits)


def plan(cost: Cost, device: torch.device, *, seconds: float = 20.0) -> Plan:
    """Measure a part of the work on this machine, and predict the rest.

    Args:
        seconds: How long the measurement may take, about.

    Raises:
        TrainingError: The work does not fit into the memory there is; it says what would.
        DeviceError: The device computes wrongly.
    """
    check_states(cost, device)
    return predict(cost, measure(cost, device, seconds=seconds))


def predict(cost: Cost, measured: Measured) -> Plan:
    """The plan that follows from a measurement of the same work, or of a part of it.

    Raises:
        TrainingError: The work does not fit into the memory there is; it says what would.
    """
    choices = tuple(_choice(cost, parts, measured) for parts in _divisors(cost.batch_size))
    peak = peak_bytes(cost, measured)
    if not _fits(peak, measured.room_bytes):
        raise _refusal(cost, measured, choices)
    step_s = step_seconds(cost, measured)
    validation_s = cost.validations * _reading_seconds(
        cost, measured, cost.validation_tokens * flops_per_token(cost.model, cost.context) // 3
    )
    return Plan(
        cost=cost,
        measured=measured,
        peak_bytes=peak,
        room_bytes=measured.room_bytes,
        step_s=step_s,
        tokens_per_s=cost.tokens / step_s,
        validation_s=validation_s,
        total_s=cost.steps * step_s + validation_s,
        checkpoint_bytes=cost.checkpoint_bytes,
        choices=choices,
    )


def peak_bytes(cost: Cost, measured: Measured) -> int:
    """The measured peak, and what this work takes more than the part that was measured."""
    kind = _kind(measured.device)
    return measured.peak_bytes + cost.memory(kind) - measured.part.memory(kind)


def step_seconds(cost: Cost, measured: Measured) -> float:
    """One optimiser step: learning, and what is read and sampled for it."""
    took = seconds_of(cost, measured)
    learning = cost.micro_batches * took.micro_batch + took.update
    reading = _reading_seconds(cost, measured, cost.reading_flops())
    turns = cost.batch_size / cost.sampled_at_once
    return learning + reading + turns * cost.sampled * took.token


def seconds_of(cost: Cost, measured: Measured) -> Seconds:
    """What the parts of a step take with all layers and all sequences of a micro-batch."""
    deep, shallow, part = measured.seconds, measured.one_layer, measured.part
    more = (cost.model.n_layer - part.model.n_layer) / max(1, part.model.n_layer - 1)

    def with_all_layers(deep: float, shallow: float) -> float:
        return deep + more * max(0.0, deep - shallow)

    micro_batch = with_all_layers(deep.micro_batch, shallow.micro_batch)
    return Seconds(
        micro_batch=micro_batch * (cost.rows * cost.context) / (part.rows * part.context),
        update=with_all_layers(deep.update, shallow.update),
        token=with_all_layers(deep.token, shallow.token),
    )


def check_states(cost: Cost, device: torch.device) -> None:
    """Refuse, before anything is measured, a model whose states alone do not fit.

    Raises:
        TrainingError: It says what they need and what there is.
    """
    least = replace(cost, batch_size=1, context=1, micro_batches=1, validation_tokens=0)
    needed, there_is = least.memory(_kind(device.type)), room(device)
    if not _fits(needed, there_is):
        raise TrainingError(
            f"weights, gradients and the optimiser's memory alone need {show_bytes(needed)}, and "
            f"{show_bytes(there_is or 0)} are free: choose fewer layers, a narrower model, a "
            "smaller vocabulary, or a machine with more memory"
        )


def _reading_seconds(cost: Cost, measured: Measured, flops: int) -> float:
    """Reading without learning, at the speed at which a micro-batch is learned from."""
    took = seconds_of(cost, measured).micro_batch * cost.micro_batches
    return took * flops / cost.flops()


def _choice(cost: Cost, micro_batches: int, measured: Measured) -> Choice:
    divided = cost.in_parts(micro_batches)
    peak = peak_bytes(divided, measured)
    return Choice(
        micro_batches=micro_batches,
        rows=divided.rows,
        peak_bytes=peak,
        fits=_fits(peak, measured.room_bytes),
    )


def _refusal(cost: Cost, measured: Measured, choices: tuple[Choice, ...]) -> TrainingError:
    """What the work needs, what there is, and the nearest that would fit."""
    needed, there_is = peak_bytes(cost, measured), measured.room_bytes or 0
    said = (
        f"{cost.rows} sequences of {cost.context} tokens at once need {show_bytes(needed)}, and "
        f"{show_bytes(there_is)} are free, of which a plan fills {SHARE:.0%}"
    )
    if (fitting := next((choice for choice in choices if choice.fits), None)) is not None:
        way = f"take --micro-batches {fitting.micro_batches} ({show_bytes(fitting.peak_bytes)})"
        return TrainingError(f"{said}: {way}")
    one = cost.in_parts(cost.batch_size)
    lean = peak_bytes(replace(one, recompute=True), measured)
    if not cost.recompute and _fits(lean, there_is):
        way = f"take --recompute with --micro-batches {cost.batch_size} ({show_bytes(lean)})"
    else:
        way = "choose a shorter context or a smaller model"
    alone = show_bytes(peak_bytes(one, measured))
    return TrainingError(f"{said}, and one sequence alone needs {alone}: {way}")


def _fits(needed: int, room: int | None) -> bool:
    return room is None or needed <= SHARE * room


def _kind(device: str) -> Literal["cpu", "cuda"]:
    """Of whose memory: a processor's, which text shares, or a graphics card's."""
    return "cpu" if device == "cpu" else "cuda"


def _divisors(number: int) -> list[int]:
    """Numbers that divide it, ascending.

    >>> _divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [n for n in range(1, number + 1) if number % n == 0]
