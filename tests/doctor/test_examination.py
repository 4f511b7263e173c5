"""The whole visit: what is looked at for which model, and that nothing ends it."""

import dataclasses
import shutil

import pytest

from cleangpt2.doctor import examination, reference
from cleangpt2.doctor.examination import examine
from cleangpt2.doctor.finding import Finding, summary
from cleangpt2.model.config import SIZES
from cleangpt2.model.pretrained import save
from tests.stubs import random_model, small_tokenizer

LINE = "the weights of gpt2 are not on this machine; run `cleangpt2 doctor gpt2` where they can be"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """No self-check, which has tests of its own, and an empty hub cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(examination, "devices", lambda *_, **__: iter(()))


@pytest.fixture
def gpt2_is_little(monkeypatch, tmp_path):
    """A world in which OpenAI published a small model under the name of gpt2."""
    tokenizer = small_tokenizer()
    model = random_model(tokenizer.vocab_size)
    folder = tmp_path / "little"
    save(model, tokenizer, folder)
    first = tuple(model.h[0].attn.c_attn.bias[:3].tolist())
    last = model([5, 6, 7])[-1]
    top = last.topk(5)
    rows = [
        reference.Row(
            check="weights", name="h.0.attn.c_attn.bias", expected=first, tolerance=1e-6, source="x"
        ),
        reference.Row(
            check="logits", name="a text", ids=(5, 6, 7), tokens=tuple(top.indices.tolist()),
            expected=tuple(top.values.tolist()), tolerance=1e-4, source="x",
        ),
    ]  # fmt: skip
    monkeypatch.setitem(SIZES, "gpt2", model.config)
    monkeypatch.setattr(reference, "table", lambda: {"gpt2": rows})
    return folder, rows


def found(*args, **kwargs):
    return list(examine(*args, **kwargs))


def of(section, findings):
    return [finding for finding in findings if finding.section == section]


def test_without_a_model_the_bundled_one_is_examined_and_no_network_asked():
    findings = found(device="cpu")
    assert [f.section for f in findings if f.verdict == "failed"] == []
    assert "'story' is bundled" in of("model", findings)[0].detail
    (last,) = of("published outputs", findings)
    assert (last.subject, last.verdict) == ("gpt2", "not run")
    assert last.detail.startswith(LINE)


def test_gpt2_that_cannot_be_had_is_not_run_and_says_so():
    findings = found("gpt2", device="cpu")
    (model,) = of("model", findings)
    assert model.verdict == "failed"
    assert "not on this machine" in model.detail
    (last,) = of("published outputs", findings)
    assert last.verdict == "not run" and last.detail.startswith(LINE)
    # What it would need is known all the same.
    assert any("497.8 MB of weights" in f.detail for f in of("memory", findings))


def test_a_copy_of_a_published_model_is_compared_wherever_it_lies(gpt2_is_little):
    folder, rows = gpt2_is_little
    published = of("published outputs", found(str(folder), device="cpu"))
    assert [finding.verdict for finding in published] == ["ok", "ok"]
    wrong = dataclasses.replace(rows[1], expected=tuple(x + 1e-3 for x in rows[1].expected))
    rows[1] = wrong
    published = of("published outputs", found(str(folder), device="cpu", dtype="bfloat16"))
    assert [finding.verdict for finding in published] == ["ok", "failed"]
    assert published[1].subject == "logits: a text"


def test_a_fine_tuned_model_is_not_measured_by_numbers_of_another(gpt2_is_little, tmp_path):
    save(random_model(300, seed=9), small_tokenizer(), tmp_path / "tuned")
    (finding,) = of("published outputs", found(str(tmp_path / "tuned"), device="cpu"))
    assert finding.verdict == "not run"
    assert "the shape of gpt2 and other weights" in finding.detail


def test_a_name_that_means_nothing_is_one_failure():
    findings = found("strory", device="cpu")
    failed = [finding for finding in findings if finding.verdict == "failed"]
    assert len(failed) == 1
    assert "Did you mean 'story'?" in failed[0].detail


def test_a_device_that_is_not_here_is_a_finding_and_the_rest_goes_on():
    findings = found(device="cuda:77")
    failed = [finding for finding in findings if finding.verdict == "failed"]
    assert [finding.section for finding in failed] == ["devices"]
    assert of("model", findings)[-1].subject == "runs"


def test_a_broken_folder_never_raises(gpt2_is_little, tmp_path):
    folder, _ = gpt2_is_little
    names = [path.name for path in folder.iterdir()]
    for name in names:
        for content in (None, b"[" * 10_000):
            broken = shutil.copytree(folder, tmp_path / "broken")
            (broken / name).unlink()
            if content is not None:
                (broken / name).write_bytes(content)
            findings = found(str(broken), device="cpu")
            failed = [f for f in findings if f.verdict in ("failed", "not run")]
            assert any(f.section == "model" for f in failed), (name, content)
            assert all("\n" not in f.detail for f in findings)
            shutil.rmtree(broken)


def test_an_empty_folder_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    failed = [f for f in found(str(tmp_path / "empty"), device="cpu") if f.verdict == "failed"]
    assert {"config.json", "weights", "tokenizer files"} <= {f.subject for f in failed}


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        (["ok", "not run"], "everything is fine"),
        (["ok", "warning"], "everything works, with 1 warning above"),
        (["warning", "failed", "failed"], "2 checks failed; begin with b: mend it"),
    ],
)
def test_the_last_line(verdicts, line):
    names = iter("abcdef")
    findings = [Finding("s", next(names), verdict, "x", "mend it") for verdict in verdicts]
    assert summary(findings) == line
