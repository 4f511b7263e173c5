"""What models wrote in the course of training: a few steps, evenly chosen, the newest first."""

from cleangpt2.report.curve import spread
from cleangpt2.report.folder import Run, Sample
from cleangpt2.report.markup import escape

_MOST_STEPS, _MOST_EACH, _LONGEST = 6, 3, 2000


def samples(run: Run) -> str:
    """The texts of the newest samples, those of earlier steps folded away; or an empty text."""
    by_step: dict[int, list[Sample]] = {}
    for sample in run.samples:
        by_step.setdefault(sample.step, []).append(sample)
    if not by_step:
        return ""
    steps = sorted(by_step)
    newest, *earlier = (steps[i] for i in reversed(spread(len(steps), _MOST_STEPS)))
    folded = "\n".join(
        f"<details><summary>after step {step:,}</summary>\n{_texts(by_step[step])}\n</details>"
        for step in earlier
    )
    return f"<h3>after step {newest:,}</h3>\n{_texts(by_step[newest])}\n{folded}"


def _texts(samples: list[Sample]) -> str:
    return "\n".join(
        f'<div class="sample" dir="auto"><span class="prompt">{escape(sample.prompt, _LONGEST)}'
        f"</span>{escape(sample.text, _LONGEST)}</div>{_base(sample)}"
        for sample in samples[:_MOST_EACH]
    )


def _base(sample: Sample) -> str:
    """What the model wrote before it was trained, if that is known."""
    if sample.base is None:
        return ""
    return (
        "<details><summary>before training</summary>"
        f'<div class="sample" dir="auto">{escape(sample.base, _LONGEST)}</div></details>'
    )
