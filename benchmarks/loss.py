"""The cross-entropy of the output layer and its gradients: time, peak memory, agreement.

    python benchmarks/loss.py --tokens 1024
    python benchmarks/loss.py --tokens 8192 --rounds 2

Ours (``model/logprobs.py``), PyTorch's chunked ``F.linear_cross_entropy`` where this PyTorch has
one, and the plain way, logits and then ``F.cross_entropy``, take turns; read the ratios. Memory is
what a forward and a backward pass add to the peak of a process of their own (Linux), or, on a GPU,
of the allocator.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from _turns import in_turn, machine, ratio
from torch import Tensor

from cleangpt2.model.logprobs import linear_cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(hidden, weight, targets) -> the mean cross-entropy."""


def main() -> None:
    """Read the options, print times and memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of a micro-batch")
    parser.add_argument("--vocab", type=int, default=50257)
    parser.add_argument("--width", type=int, default=768, help="n_embd")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="under autocast in bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(added_memory(WAYS[args.memory_of], args))
        return

    print(machine("torch"), f", {args.threads} threads, on {args.device}", sep="")
    print(f"{args.tokens} tokens, {args.vocab} words, width {args.width}")
    steps = {name: step(way, args) for name, way in WAYS.items()}
    agreement(steps)
    for passes, choice in (("forward and backward", steps), ("forward only", forward_only(args))):
        times = in_turn(choice, args.rounds)
        for name, seconds in times.items():
            faster = ratio(times["ours"], seconds)
            print(f"{passes}, {name}: {median(seconds):.3f} s, ours is {faster:.2f}x", flush=True)
    for name in WAYS:
        print(f"memory added, {name}: {memory_of(name)} MiB", flush=True)


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """All logits at once."""
    return F.cross_entropy(F.linear(hidden, weight).float(), targets)


def pytorch(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """PyTorch's chunks, of its own choice."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, targets, options=options)


WAYS: dict[str, Loss] = {"ours": linear_cross_entropy, "plain": plain}
if hasattr(F, "linear_cross_entropy"):
    WAYS["F.linear_cross_entropy"] = pytorch


def operands(args: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """The same random numbers for every way; the size of what GPT-2 makes of them."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(args.tokens, args.width, generator=generator)
    weight = torch.randn(args.vocab, args.width, generator=generator)
    weight *= args.width**-0.5  # in place: a copy would count as memory of the operands
    targets = torch.randint(0, args.vocab, (args.tokens,), generator=generator)
    hidden, weight = (t.to(args.device).requires_grad_() for t in (hidden, weight))
    return hidden, weight, targets.to(args.device)


def step(way: Loss, args: argparse.Namespace) -> Callable[[], list[Tensor]]:
    """A forward and a backward pass: the loss and both gradients."""
    hidden, weight, targets = operands(args)

    def run() -> list[Tensor]:
        with precision(args):
            loss = way(hidden, weight, targets)
        gradients = torch.autograd.grad(loss, (hidden, weight))
        synchronize(args)
        return [loss.detach(), *gradients]

    return run


def forward_only(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """The loss alone, as a validation wants it."""
    given = operands(args)

    def forward(way: Loss) -> None:
        with torch.no_grad(), precision(args):
            way(*given)
        synchronize(args)

    return {name: lambda way=way: forward(way) for name, way in WAYS.items()}


def precision(args: argparse.Namespace) -> torch.autocast | nullcontext[None]:
    """Autocast, if asked for."""
    return torch.autocast(args.device, torch.bfloat16) if args.bf16 else nullcontext()


def synchronize(args: argparse.Namespace) -> None:
    """Wait for the device, so that the clock sees its work."""
    if args.device.startswith("cuda"):
        torch.cuda.synchronize()


def agreement(steps: dict[str, Callable[[], list[Tensor]]]) -> None:
    """How far loss and gradients are from the plain way's, of their largest magnitude."""
    expected = steps["plain"]()
    for name, run in steps.items():
        pairs: Iterable[tuple[Tensor, Tensor]] = zip(run(), expected, strict=True)
        errors = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
        print(f"{name} differs by {', '.join(f'{error:.0e}' for error in errors)}")


def memory_of(name: str) -> str:
    """Ask a process of its own, with the options this one was given."""
    arguments = [sys.executable, *sys.argv, "--memory-of", name]
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()


def added_memory(way: Loss, args: argparse.Namespace) -> int:
    """MiB that one step adds to what its operands need."""
    run = step(way, args)
    before = peak_mib(args)
    run()
    return peak_mib(args) - before


def peak_mib(args: argparse.Namespace) -> int:
    """The most memory this process has held."""
    if args.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() >> 20
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


if __name__ == "__main__":
    main()
