"""How fast plain `generate` is, beside transformers: one prompt, and a few at once.

    python benchmarks/generate.py

Both read the same random weights from the same folder and write tokens one by one with a cache;
they take turns, so read the ratios. Greedy ids are compared, and the share of equal ones printed.
Memory is the peak of a process of its own that loads the folder and generates.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from statistics import median

import torch
from _turns import in_turn, machine, ratio

from cleangpt2.model.config import size
from cleangpt2.model.gpt2 import GPT2
from cleangpt2.sampler.config import SamplingConfig
from cleangpt2.sampler.decode import Decoding

Way = Callable[[list[list[int]], int, float], list[list[int]]]
"""(prompts, new tokens, temperature) -> the ids of each row."""


def main() -> None:
    """Read the options, make the weights and run each measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="gpt2", help="a published size")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens to write")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)  # the way, the folder
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        way, folder = args.memory_of
        WAYS[way](folder)(random_prompts(1, args.prompt), args.new, 0.0)
        print(peak_memory())
        return

    print(machine("torch", "transformers"), f", {args.threads} threads", sep="")
    with tempfile.TemporaryDirectory() as folder:
        GPT2(size(args.size)).save_pretrained(folder)
        ways = {name: load(folder) for name, load in WAYS.items()}
        for rows, temperature in ((1, 0.0), (1, 0.8), (4, 0.0), (16, 0.0)):
            compare(ways, rows, temperature, args)
        memory(folder, args)


def ours(folder: str) -> Way:
    """Our sampler."""
    model = GPT2.from_pretrained(folder, device="cpu")

    def write(prompts: list[list[int]], new: int, temperature: float) -> list[list[int]]:
        config = SamplingConfig(max_new_tokens=new, temperature=temperature, seed=1)
        decoding = Decoding(model, prompts, config)
        while decoding.active:
            decoding.step()
        return decoding.sequences

    return write


def transformers(folder: str) -> Way:
    """The `generate` of transformers, every token allowed and none ending a row."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder).eval()

    def write(prompts: list[list[int]], new: int, temperature: float) -> list[list[int]]:
        ids = torch.tensor(prompts)
        how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            pad_token_id=0,
            min_new_tokens=new,
            max_new_tokens=new,
            **how,
        )
        return written.tolist()

    return write


WAYS: dict[str, Callable[[str], Way]] = {"ours": ours, "transformers": transformers}


def random_prompts(rows: int, tokens: int) -> list[list[int]]:
    """Ids that mean nothing, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 50256, (rows, tokens), generator=generator).tolist()


def compare(ways: dict[str, Way], rows: int, temperature: float, args: argparse.Namespace) -> None:
    """Tokens a second of both, prompt included, and how many times faster ours is."""
    prompts = random_prompts(rows, args.prompt)
    calls = {
        name: lambda way=way: way(prompts, args.new, temperature) for name, way in ways.items()
    }
    times = in_turn(calls, args.rounds)
    title = f"{rows} at once, " + (f"temperature {temperature}" if temperature else "greedy")
    if not temperature:
        one, other = (torch.tensor(call())[:, args.prompt :] for call in calls.values())
        title += f" ({(one == other).double().mean():.1%} of the ids equal)"
    print(f"\n{title}")
    for name, spent in times.items():
        told = "" if name == "ours" else f"   ours: {ratio(times['ours'], spent):.2f} x"
        print(f"  {name:<14}{rows * args.new / median(spent):>8.1f} tokens/s{told}")


def memory(folder: str, args: argparse.Namespace) -> None:
    """The peak of one process that loads the folder and writes once."""
    print("\npeak memory of a process that loads and generates")
    for name in WAYS:
        command = [sys.executable, __file__, "--memory-of", name, folder]
        command += ["--prompt", str(args.prompt), "--new", str(args.new)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"  {name:<14}{int(done.stdout) / 1024:>8.0f} MiB")


def peak_memory() -> int:
    """The largest resident size of this process so far, in KiB (Linux).

    Not `getrusage`, whose peak a child inherits from the process that started it.
    """
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
