"""The table of recipes tells what the recipes do."""

import dataclasses
import importlib

import pytest

from cleangpt2.recipes import gpt2_124m, shakespeare, story
from cleangpt2.recipes.catalogue import RECIPES, table
from cleangpt2.tokenizer import Tokenizer
from cleangpt2.training.arithmetic import flops_per_token
from tests.helpers import run_python

TOKENIZER = Tokenizer.train(["low low low lower lowest"], 264, story.SPECIAL_TOKENS)


def shaped(config, vocab_size):
    return dataclasses.replace(config, vocab_size=vocab_size)


RUNS = {
    "story --size tiny": (
        shaped(story.model_config("tiny", TOKENIZER), story.VOCAB_SIZE), story.TRAINING["tiny"],
    ),
    "story": (
        shaped(story.model_config("story", TOKENIZER), story.VOCAB_SIZE), story.TRAINING["story"],
    ),
    "shakespeare": (
        shaped(shakespeare.model_config("laptop", TOKENIZER), shakespeare.BYTES),
        shakespeare.TRAINING["laptop"],
    ),
    "shakespeare --size gpu": (
        shaped(shakespeare.model_config("gpu", TOKENIZER), shakespeare.BYTES),
        shakespeare.TRAINING["gpu"],
    ),
    "gpt2_124m": (shaped(gpt2_124m.model_config(TOKENIZER), 50257), gpt2_124m.TRAINING),
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_work_of_a_recipe_is_that_of_its_settings(recipe):
    shape, config = RUNS[recipe.name]
    work = flops_per_token(shape, config.context) * config.tokens
    assert recipe.petaflop == pytest.approx(work / 1e15, rel=0.05)


def test_the_module_prints_the_table_and_every_command_without_torch():
    script = (
        "import runpy, sys; runpy.run_module('cleangpt2.recipes', run_name='__main__');"
        "assert 'torch' not in sys.modules"
    )
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr
    assert table() in done.stdout
    assert all(f"python -m cleangpt2.recipes.{r.command}" in done.stdout for r in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_flags_of_a_command_are_those_of_its_recipe(recipe, monkeypatch):
    """Parsed for real, up to the training itself."""
    name, *words = recipe.command.split()
    module = importlib.import_module(f"cleangpt2.recipes.{name}")
    seen = []
    monkeypatch.setattr(module, "train", lambda *args, **kwargs: seen.append(args) or 0.0)
    module.main([word if word != "DIR" else "." for word in words])
    assert len(seen) == 1


def test_help_teaches_what_the_recipe_is():
    done = run_python("-m", "cleangpt2.recipes.shakespeare", "--help")
    assert done.returncode == 0, done.stderr
    assert all(line in done.stdout for line in shakespeare.__doc__.splitlines())


def test_a_mistake_costs_one_line():
    done = run_python("-m", "cleangpt2.recipes.shakespeare", "--data", "no-such-file.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no-such-file.txt cannot be read")
    assert done.stderr.count("\n") == 1
