"""From text to shards: read, encode in parallel, write in order.

The files that come out are a pure function of the sources, the vocabulary and the settings: how
many processes encode, and how often the run was killed and taken up again, leaves no trace.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from cleangpt2.data.config import PrepareConfig
from cleangpt2.data.corpus import Corpus
from cleangpt2.data.index import TOKENIZER, Index, read_index
from cleangpt2.data.progress import Progress, check_same, job_of, load_progress
from cleangpt2.data.reading import Position, check_sources, read_blocks
from cleangpt2.data.removal import remove, remove_scratch
from cleangpt2.data.run import Run
from cleangpt2.data.shards import Identity
from cleangpt2.data.sources import Source, find_sources
from cleangpt2.data.workers import Encoders
from cleangpt2.errors import OutputError
from cleangpt2.files import check_writable, written_aside
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.tokenizer.files import vocabulary_files

DEFAULTS = PrepareConfig()


def prepare(
    names: Sequence[str],
    tokenizer: Tokenizer,
    folder: str | Path,
    config: PrepareConfig = DEFAULTS,
    *,
    tokenizer_name: str = "",
    workers: int = 1,
    fresh: bool = False,
    progress: Callable[[int], object] | None = None,
    warn: Callable[[str], object] | None = None,
) -> Index:
    """Make a folder of shards, or go on where it stopped; see `data/corpus.py` for reading it.

    Args:
        names: Files, folders, ``-`` for standard input, ``hf:owner/name[:config][/split]``.
        tokenizer_name: What ``index.json`` calls the tokenizer.
        workers: Processes that encode; more than one needs a main module that can be imported.
        fresh: Remove what an earlier run left in `folder`.
        progress: Called with the bytes of the sources that are done, block by block.
        warn: Called with each bad line that is left out.

    Returns:
        The folder's index; at once if the folder is finished.

    Raises:
        DataError: A source cannot be read, there is no document, or, in `strict`, a bad line; or
            the finished folder is damaged.
        ConfigError: The folder was begun with other sources or settings.
        OutputError: The folder cannot be written.
    """
    folder = Path(folder).expanduser()
    identity = Identity.of(tokenizer)
    sources = find_sources(names, config.stdin)
    check_sources(sources, config.key)
    check_writable(folder)
    if fresh:
        remove(folder)
    job = job_of(sources, identity, config)
    if (done := read_index(folder)) is not None:
        check_same(_job_of_index(done), job, folder)
        Corpus(folder)  # a finished folder may have been damaged since
        return done
    state = load_progress(folder)
    if state is not None and state.position == Position():  # begun, and nothing is done
        remove(folder)
        state = None
    if state is not None:
        check_same(state.job, job, folder)
    run = Run(folder, sources, identity, config, state or Progress(job), warn or (lambda _: None))
    try:
        with Encoders(tokenizer, config, workers) as encoders:
            folder.mkdir(parents=True, exist_ok=True)
            remove_scratch(folder)
            _save_vocabulary(tokenizer, folder / TOKENIZER)
            run.begin()
            if progress is not None:
                progress(_bytes_before(sources, run.state.position))
            for block, encoded in encoders.encode(read_blocks(sources, config, run.state.position)):
                run.take(block, encoded)
                if progress is not None:
                    progress(sum(part.read for part in block))
        index = run.finish(tokenizer_name)
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; make room or mend it, then the "
            "same command goes on where it stopped"
        ) from error
    finally:
        run.close()
    return index


def _save_vocabulary(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the vocabulary beside the shards, for whoever reads them."""
    with written_aside(folder) as scratch:
        for name, content in vocabulary_files(tokenizer.vocabulary, folder).items():
            (scratch / name).write_text(content, encoding="utf-8", newline="\n")


def _job_of_index(index: Index) -> dict:
    return {
        "tokenizer": asdict(index.identity),
        "settings": index.settings,
        "sources": [[source.name, source.bytes] for source in index.sources],
    }


def _bytes_before(sources: Sequence[Source], position: Position) -> int:
    """How much of the sources is done, for the progress bar; what is packed counts once read."""
    whole = sum(source.size for source in sources[: position.source])
    here = sources[position.source]
    plain = here.path is not None and not here.is_packed and here.kind != "parquet"
    return whole + (position.offset if plain else 0)
