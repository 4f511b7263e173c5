"""``cleangpt2 doctor``: is everything here as it should be, and what to do if not."""

import dataclasses
import json
from dataclasses import dataclass

import tyro

from cleangpt2.cli import terminal

EXAMPLE = """
    cleangpt2 doctor
    cleangpt2 doctor gpt2
    cleangpt2 doctor runs/first/model --device cpu --dtype bfloat16
"""

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red", "not run": "dim"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to examine, and where it is to run."""

    model: tyro.conf.Positional[str | None] = None
    """A bundled model, a published size, a hub id or a folder; "story", quickly, by default."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """auto (float32), float32, bfloat16, float16."""
    json: bool = False
    """Print JSON instead of lines."""
    fresh: bool = False
    """Check the device again, whatever is remembered of it."""


def run(options: Options) -> int:
    """Print what is found; the exit code is 1 if anything failed."""
    from cleangpt2.doctor.examination import examine
    from cleangpt2.doctor.finding import Finding, summary

    findings: list[Finding] = []
    section = ""
    for finding in examine(
        options.model, device=options.device, dtype=options.dtype, fresh=options.fresh
    ):
        findings.append(finding)
        if options.json:
            continue
        if finding.section != section:
            section = finding.section
            print(f"\n{terminal.paint(section, 'bold')}")
        said = f"{finding.subject}: {finding.detail}"
        verdict = terminal.paint(f"{finding.verdict:<8}", _STYLES[finding.verdict])
        print(f"  {verdict} {terminal.harmless(said)}", flush=True)
        if finding.advice:
            print(f"           {terminal.paint(terminal.harmless(finding.advice), 'dim')}")

    has_failed = any(finding.verdict == "failed" for finding in findings)
    last = summary(findings)
    if options.json:
        listed = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"ok": not has_failed, "summary": last, "findings": listed}, indent=2))
    else:
        print(f"\n{terminal.paint(terminal.harmless(last), 'red' if has_failed else 'green')}")
    return int(has_failed)
