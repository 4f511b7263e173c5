"""What the doctor says: findings, and how a broken check becomes one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from cleangpt2.errors import CleanGPT2Error

Verdict = Literal["ok", "warning", "failed", "not run"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    section: str
    subject: str
    verdict: Verdict
    detail: str
    """What was found; where it is not as it should be, why."""
    advice: str = ""
    """What to do about it."""


Check = Callable[[], Iterator[Finding]]


def guarded(section: str, subject: str, check: Check) -> Iterator[Finding]:
    """The findings of a check; what it raises is the last of them.

    >>> def broken():
    ...     yield Finding("model", "config", "ok", "12 layers")
    ...     raise OSError("the disk is gone")
    >>> for finding in guarded("model", "weights", broken):
    ...     print(finding.subject, finding.verdict, finding.detail)
    config ok 12 layers
    weights failed OSError: the disk is gone
    """
    try:
        yield from check()
    except CleanGPT2Error as error:  # says what is wrong and what to do, in one line
        yield Finding(section, subject, "failed", one_line(error))
    except Exception as error:
        yield Finding(section, subject, "failed", f"{type(error).__name__}: {one_line(error)}")


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks, and no longer than a few lines."""
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else f"{text[:500]}..."


def summary(findings: list[Finding]) -> str:
    """The last line: whether all is well, or what to do first.

    >>> summary([Finding("model", "config", "ok", "12 layers")])
    'everything is fine'
    >>> summary([Finding("model", "merges.txt", "failed", "is missing", "copy it there")])
    '1 check failed; begin with merges.txt: copy it there'
    """
    failed = [finding for finding in findings if finding.verdict == "failed"]
    warnings = sum(finding.verdict == "warning" for finding in findings)
    if failed:
        first = failed[0]
        number = "1 check" if len(failed) == 1 else f"{len(failed)} checks"
        return f"{number} failed; begin with {first.subject}: {first.advice or first.detail}"
    if warnings:
        number = "1 warning" if warnings == 1 else f"{warnings} warnings"
        return f"everything works, with {number} above"
    return "everything is fine"
