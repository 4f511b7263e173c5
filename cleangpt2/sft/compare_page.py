"""A comparison of models as one HTML page."""

import math
from collections.abc import Sequence
from statistics import fmean

from cleangpt2.report.document import document
from cleangpt2.report.markup import escape
from cleangpt2.sft.change import STEPS, compared, factor, step
from cleangpt2.sft.compare import Answer, Comparison

_LONGEST = 4000


def page(comparisons: Sequence[Comparison], names: Sequence[str], how: str) -> str:
    """The page.

    Args:
        comparisons: One a prompt.
        names: Of the models, the first of which the others are compared with.
        how: The settings, in words.
    """
    title = f"{', '.join(names)} compared"
    labels = [f"{chr(ord('A') + m)} · {name}" for m, name in enumerate(names)]
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="dim">{escape(how, 400)}</p>']
    parts += [_overview(comparisons, labels), _legend()]
    for number, comparison in enumerate(comparisons, start=1):
        parts.append(f"<h2>Prompt {number}</h2>")
        prompt = escape(comparison.prompt, _LONGEST)
        parts.append(f'<div class="sample" dir="auto"><span class="prompt">{prompt}</span></div>')
        parts.append('<div class="columns-of-answers">')
        answers = enumerate(zip(comparison.answers, labels, strict=True))
        parts += [_answer(m, answer, label) for m, (answer, label) in answers]
        parts.append("</div>")
        for answer, label in zip(comparison.answers, labels, strict=True):
            parts.append(
                f"<details><summary>every token of {escape(label)}</summary>\n"
                f'<div class="wide">{_tokens(answer)}</div></details>'
            )
    return document(title, "\n".join(parts), styles=("page", "tokens"))


def _overview(comparisons: Sequence[Comparison], labels: Sequence[str]) -> str:
    """What the answers of each model come to."""
    rows = []
    for m, label in enumerate(labels):
        answers = [comparison.answers[m] for comparison in comparisons]
        stopped = sum(a.completion.finish_reason == "stop" for a in answers)
        tokens = sum(len(a.completion.ids) for a in answers)
        x = compared(m)
        kl = math.fsum(nats for a in answers for nats in a.kl[x]) / max(tokens, 1)
        change = math.fsum(nats for a in answers for nats in a.change(x)) / max(tokens, 1)
        length = fmean(len(a.completion.ids) for a in answers)
        versus = chr(ord("A") + x)
        rows.append(
            [label, f"{stopped} of {len(answers)}", f"{length:.1f}",
             f"{change:+.4f} ({versus}/A)", f"{kl:.4f} (A‖{versus})"]
        )  # fmt: skip
    head = ["model", "answers that stop", "tokens", "log p change a token", "KL a token, nats"]
    return table(head, rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], last: Sequence[str] = ()) -> str:
    """A table of figures, its last line a sum."""
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "\n".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in rows)
    total = f'\n<tr class="differs">{"".join(f"<td>{escape(c)}</td>" for c in last)}</tr>'
    end = total if last else ""
    return f'<table class="figures">\n<tr>{titles}</tr>\n{lines}{end}\n</table>'


def _legend() -> str:
    steps = "".join(f'<span class="t c{n}">{s.meaning}</span>' for n, s in enumerate(STEPS))
    return (
        f'<p class="dim">A token is on the ground of its change from A to the model that wrote it '
        f"(of A's own answer, from A to B):</p>\n<p>{steps}</p>\n"
        '<p class="dim">Probabilities and KL are the models\' own, before temperature and filters; '
        "KL(A‖X) at each place is over the whole vocabulary. All models had the same random "
        "numbers: equal models would have written equal answers.</p>"
    )


def _answer(m: int, answer: Answer, label: str) -> str:
    x, spans = compared(m), []
    for place, (token, change) in enumerate(zip(answer.tokens, answer.change(x), strict=True)):
        said = ", ".join(
            f"{chr(ord('A') + model)} {math.exp(logprobs[place]):.4f}"
            for model, logprobs in enumerate(answer.logprobs)
        )
        said += f"; {factor(change)}; KL {answer.kl[x][place]:.4f}"
        kind = STEPS.index(step(change))
        text = escape(token).replace("\n", "↵\n")
        spans.append(f'<span class="c{kind}" title="{escape(said)}">{text}</span>')
    letters = [chr(ord("A") + model) for model in range(len(answer.logprobs))]
    figures = (f"{x} {math.fsum(p):.2f}" for x, p in zip(letters, answer.logprobs, strict=True))
    sums = [f"log p {', '.join(figures)}"]
    sums += [
        f"KL(A‖{chr(ord('A') + other)}) {math.fsum(answer.kl[other]):.4f}"
        for other in range(1, len(answer.kl))
    ]
    ended = f"{len(answer.tokens)} tokens, {answer.completion.finish_reason}"
    return (
        f"<section><h3>{escape(label)}</h3>\n"
        f'<div class="sample answer" dir="auto">{"".join(spans)}</div>\n'
        f'<p class="dim">{ended}; {escape("; ".join(sums))} nats</p></section>'
    )


def _tokens(answer: Answer) -> str:
    """Every token with its probability under each model, its change and KL."""
    letters = [chr(ord("A") + m) for m in range(len(answer.logprobs))]
    head = [
        "token",
        *letters,
        *(f"{x}/A" for x in letters[1:]),
        *(f"KL(A‖{x})" for x in letters[1:]),
    ]
    others = range(1, len(letters))
    rows = [
        [repr(token), *(f"{math.exp(p[place]):.4f}" for p in answer.logprobs),
         *(factor(answer.change(m)[place]) for m in others),
         *(f"{answer.kl[m][place]:.4f}" for m in others)]
        for place, token in enumerate(answer.tokens)
    ]  # fmt: skip
    sums = [
        "sum, nats", *(f"{math.fsum(p):.3f}" for p in answer.logprobs),
        *(f"{math.fsum(answer.change(m)):+.3f}" for m in others),
        *(f"{math.fsum(answer.kl[m]):.4f}" for m in others),
    ]  # fmt: skip
    return table(head, rows, sums)
