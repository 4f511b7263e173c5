from cleangpt2.cli.demo import OPENINGS, SENTENCE
from cleangpt2.model.summary import summarise
from tests.helpers import run_cli


def test_the_demo_runs_with_nothing_but_the_package(tmp_path):
    done = run_cli("demo", "--max-new-tokens", "12", env={"HF_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    assert f"Reference text: {SENTENCE}\nTokenized sequence: [" in done.stdout
    assert f"Reconstructed reference text: {SENTENCE}" in done.stdout
    assert f"{summarise('story').total:,}" in done.stdout
    for opening in OPENINGS:
        assert f"\n{opening}" in done.stdout
    assert "\nDone in " in done.stdout


def test_the_same_seed_tells_the_same_stories():
    first, second, other = (
        run_cli("demo", "--model", "tiny", "--max-new-tokens", "8", "--seed", seed).stdout
        for seed in ("1", "1", "2")
    )

    def without_time(text):
        return text[: text.index("\nDone in")]

    assert without_time(first) == without_time(second) != without_time(other)
