"""Blocks encoded by several processes, the results in order, and never many at a time."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.encoding import Encoded, Encoder
from cleangpt2.data.reading import Part
from cleangpt2.errors import DataError
from cleangpt2.tokenizer import Tokenizer

_AHEAD = 2  # blocks a process is given before the oldest result is waited for

Block = Sequence[Part]


class Encoders:
    """Processes that encode; they get ready while this one does what else there is to do.

    with Encoders(tokenizer, config, workers=2) as encoders:
        for block, encoded in encoders.encode(blocks):
            ...
    """

    def __init__(self, tokenizer: Tokenizer, config: PrepareConfig, workers: int) -> None:
        """Start `workers` processes; 1 means this one."""
        self.workers = workers
        self._here = Encoder(tokenizer, config)
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1:
            # Spawned, not forked: that is safe beside threads, and the same on every system.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, context, _begin, (tokenizer, config))
            for _ in range(workers):
                self._pool.submit(int)  # a process is started by what it is to do

    def encode(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Encoded]]:
        """Each block with what became of it, in the order of the blocks.

        Raises:
            DataError: A process died.
        """
        if self._pool is None:
            yield from ((block, self._here(block)) for block in blocks)
            return
        waiting: deque[tuple[Block, Future[Encoded]]] = deque()
        try:
            for block in blocks:
                waiting.append((block, self._pool.submit(_encode, block)))
                if len(waiting) >= _AHEAD * self.workers:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        except BrokenProcessPool:
            raise DataError(
                f"one of {self.workers} processes died, for want of memory perhaps; the same "
                "command goes on where it stopped, with fewer --workers if need be"
            ) from None

    def __enter__(self) -> "Encoders":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def usable_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first(waiting: "deque[tuple[Block, Future[Encoded]]]") -> tuple[Block, Encoded]:
    block, future = waiting.popleft()
    return block, future.result()


# ---- in a process of its own --------------------------------------------------------------

_process: dict[str, Any] = {}  # what `_begin` leaves for `_encode`


def _begin(tokenizer: Tokenizer, config: PrepareConfig) -> None:
    """Get ready; the process that started this one answers for Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tokenizer.expect_many()
    _process["encoder"] = Encoder(tokenizer, config)


def _end_with_parent() -> None:
    """End when the parent does, even if it is killed: nobody else would tell."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(block: Block) -> Encoded:
    return _process["encoder"](block)
