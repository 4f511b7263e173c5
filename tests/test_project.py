"""The rules of the house as tests: what imports what, what every command and error has."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import json
import re
import subprocess
import textwrap
import tomllib
import typing
from pathlib import Path

import pytest

import cleangpt2
from cleangpt2 import errors
from cleangpt2.cli.main import COMMANDS
from tests.helpers import ROOT, run_cli, run_python

PACKAGE = ROOT / "cleangpt2"
SLOW_IMPORTS = {"torch", "tyro", "huggingface_hub", "tqdm", "tiktoken", "transformers", "gigatoken"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def torch_free() -> list[str]:
    """The modules that promise to work, or to give help, without torch."""
    rooms = [PACKAGE / "tokenizer", PACKAGE / "cli"]
    files = [file for room in rooms for file in room.rglob("*.py")]
    files += [PACKAGE / "errors.py", PACKAGE / "hub.py", *PACKAGE.rglob("config.py")]
    return sorted(module_name(file) for file in files)


def imported_by(statements: str) -> set[str]:
    """The top-level modules that a fresh Python holds after ``statements``."""
    done = run_python(
        "-c", f"{statements}\nimport sys\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


# --- what imports what ----------------------------------------------------------------------


def test_importing_the_package_imports_nothing_slow():
    assert not imported_by("import cleangpt2; dir(cleangpt2)") & SLOW_IMPORTS


def test_the_list_of_commands_imports_nothing_slow():
    call = "from cleangpt2.cli.main import main; main(['--help']); main(['--version'])"
    assert not imported_by(call) & SLOW_IMPORTS


def test_modules_that_promise_it_import_no_torch():
    names = torch_free()
    assert {"cleangpt2.model.config", "cleangpt2.tokenizer.bpe", "cleangpt2.hub"} <= set(names)
    loaded = imported_by("\n".join(f"import {name}" for name in names))
    assert "torch" not in loaded


def test_the_measure_of_imports_sees_torch():
    assert "torch" in imported_by("import cleangpt2.device; cleangpt2.device.choose('cpu')")


@pytest.mark.parametrize("name", cleangpt2.__all__)
def test_the_front_door_opens(name):
    assert getattr(cleangpt2, name) is not None
    assert name in dir(cleangpt2)


def test_the_front_door_knows_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'GPT3'"):
        _ = cleangpt2.GPT3


# --- commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_an_example_options_and_run(name):
    module = importlib.import_module(COMMANDS[name].module)
    assert f"cleangpt2 {name}" in module.EXAMPLE
    assert callable(module.run)
    assert dataclasses.is_dataclass(module.Options)
    assert module.Options.__dataclass_params__.frozen


def fields_without_help(options: type) -> list[str]:
    """The fields of a dataclass, and of those nested in it, that no docstring follows."""
    kinds = typing.get_type_hints(options)
    body = ast.parse(textwrap.dedent(inspect.getsource(options))).body[0].body
    silent = []
    for field, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
            continue
        if dataclasses.is_dataclass(kind := kinds[field.target.id]):
            silent += fields_without_help(kind)
        elif not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
            silent.append(f"{options.__name__}.{field.target.id}")
    return silent


@pytest.mark.parametrize("name", COMMANDS)
def test_every_field_of_a_command_has_help(name):
    assert fields_without_help(importlib.import_module(COMMANDS[name].module).Options) == []


def test_every_commands_help_starts_with_its_example_and_imports_no_torch():
    call = f"""
import contextlib, io, json, sys
from cleangpt2.cli.main import main
seen = {{}}
for name in {list(COMMANDS)!r}:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([*name.split(), "--help"])
    seen[name] = (code, out.getvalue(), "torch" in sys.modules)
print(json.dumps(seen))
"""
    done = run_python("-c", call)
    assert done.returncode == 0, done.stderr
    for name, (code, out, has_torch) in json.loads(done.stdout).items():
        assert code == 0, name
        assert out.startswith("cleangpt2 "), name
        assert f"usage: cleangpt2 {name}" in out, name
        assert not has_torch, name


def test_help_through_the_real_command():
    done = run_cli("--help")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


# --- errors -----------------------------------------------------------------------------------


def test_every_error_has_a_docstring_and_one_base():
    classes = [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    ]
    assert len(classes) > 5
    for cls in classes:
        assert issubclass(cls, errors.CleanGPT2Error)
        assert "__doc__" in vars(cls), cls
        assert cls.__doc__


# --- files ------------------------------------------------------------------------------------


def our_files() -> list[Path]:
    """The text files of the project, those that git ignores left out."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    binary = {".safetensors", ".bin", ".gz", ".png"}
    files = [ROOT / line for line in listing.stdout.splitlines()]
    return [file for file in files if file.is_file() and file.suffix not in binary]


def test_no_path_of_one_machine_and_no_unfinished_mark():
    marks = re.compile(
        r"(?<![\w.])/(home|Users|root|work|opt|tmp)/\w"  # a path of one machine
        r"|\b(TODO|FIXME|XXX)\b|NotImplementedError|\bxfail\b"  # something unfinished
    )
    # Weights' vocabularies hold any word, and this file the pattern itself.
    skipped = {"merges.txt", "vocab.json", Path(__file__).name}
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for file in our_files()
        if file.name not in skipped
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if marks.search(line)
    ]
    assert found == []


def test_every_text_file_is_utf8_and_ends_lines_the_same_way():
    assert [file for file in our_files() if b"\r" in file.read_bytes()] == []


def test_every_extra_is_pinned_in_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *itertools.chain.from_iterable(extras)]
    names = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in asked}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", pins, flags=re.MULTILINE))
    assert names - {"cleangpt2"} <= set(pinned)
    assert pinned["torch"] == "2.13.0"
    assert not any("+" in version for version in pinned.values())


# --- credits ----------------------------------------------------------------------------------


def test_notice_names_every_corpus_the_recipe_reads():
    recipe = (PACKAGE / "recipes" / "story.py").read_text(encoding="utf-8")
    corpora = set(re.findall(r"\w+\.jsonl\.gz", recipe))
    assert corpora
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert [name for name in corpora if name not in notice] == []
