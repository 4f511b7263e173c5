"""Files of examples, as published and as people damage them."""

import json

import pytest

from cleangpt2.data.records import Record, read_records
from cleangpt2.errors import DataError
from cleangpt2.tokenizer.chat import Message

GOOD = {"instruction": "Say hi.", "input": "", "output": "Hi!"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_records_say_what_they_are_and_where_they_stood(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, GOOD | {"input": "to Bob"})
    records = read_records(path)
    hi = Message("assistant", "Hi!")
    assert len(records) == 2
    assert list(records) == [
        Record((Message("user", "Say hi."), hi), f"{path}, line 1"),
        Record((Message("user", "Say hi.", "to Bob"), hi), f"{path}, line 2"),
    ]
    assert str(records.tables[0]) == "alpaca: instruction, input, output; 2 rows"
    assert not records.is_raw


def test_bad_rows_are_named_counted_and_left_out(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, GOOD | {"output": ""}, [1], GOOD)
    named = [f"{path}, line 2, has an empty 'output'"]
    named += [f"{path}, line 3, is no object with named columns"]
    warned = []
    records = read_records(path, warn=warned.append)
    assert records.bad == tuple(warned) == tuple(named)
    assert [record.where for record in records] == [f"{path}, line 1", f"{path}, line 4"]
    assert str(records.tables[0]).endswith("; 2 rows, 2 bad ones left out")
    with pytest.raises(
        DataError, match=r"2 of 4 rows are bad, the first: .*line 2, has an"
    ) as error:
        read_records(path, strict=True)
    assert "\n" not in str(error.value)


def test_each_file_has_its_own_format(tmp_path):
    write(tmp_path / "b.jsonl", {"prompt": "a", "completion": "b"})
    write(tmp_path / "a.jsonl", GOOD)
    records = read_records(tmp_path)
    assert [table.format.name for table in records.tables] == ["alpaca", "prompt and completion"]
    assert not records.is_raw
    assert read_records([tmp_path / "b.jsonl"]).is_raw


def test_the_columns_of_a_table_are_the_files_own(tmp_path):
    path = write(tmp_path / "a.jsonl", {"q": "a", "a": "b", "rest": 1})
    records = read_records(str(path), columns={"instruction": "q", "output": "a"})
    assert str(records.tables[0]) == "alpaca: q, a; 1 rows"


def test_a_bad_row_long_after_the_first_ones_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", *[GOOD] * 500, {"other": 1})
    assert read_records(path).bad == (f"{path}, line 501, has no 'instruction'",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.jsonl is empty"),
        ("\n\n", "a.jsonl is empty"),
        ("once upon a time\n", r"a.jsonl, line 1, is not JSON .*; is it another kind of file\?"),
        ('{"instruction": "a", "output": ""}\n', "1 of 1 rows are bad, the first: .*; mend them$"),
    ],
)
def test_a_file_without_an_example_is_refused(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        read_records(tmp_path / "a.jsonl")
    assert "\n" not in str(error.value)


FEW = {
    "alpaca_eval_davinci003_805.jsonl.gz": (
        "alpaca: instruction, output; 803 rows, 2 bad ones left out"
    ),
    "alpaca_head_1805.jsonl.gz": (
        "alpaca: instruction, input, output; 1,801 rows, 4 bad ones left out"
    ),
    "dolly_hhrlhf_1000.jsonl": "prompt and response: prompt, response; 1,000 rows",
    "instruction_data_1100.json": "alpaca: instruction, input, output; 1,100 rows",
}
MANY = {
    "fables_instruct.jsonl.gz": "prompt and response: prompt, response; 9,933 rows",
    "gpteacher_roleplay.jsonl.gz": "alpaca: instruction, input, output; 3,146 rows",
    "gsm8k_train_alpaca_format.jsonl.gz": "alpaca: instruction, input, output; 7,473 rows",
}


@pytest.mark.parametrize(
    ("name", "said"),
    [*FEW.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in MANY.items())],
)
def test_published_files_are_recognised(shared_data, name, said):
    records = read_records(shared_data / "sft" / name)
    assert str(records.tables[0]) == said
    assert all(reason.endswith("has an empty 'output'") for reason in records.bad)


@pytest.mark.slow
def test_a_published_file_with_other_columns(shared_data):
    path = shared_data / "sft" / "fairytaleqa_qa.jsonl.gz"
    with pytest.raises(DataError, match="the columns story, split, context, question, answer"):
        read_records(path)
    columns = {"instruction": "question", "input": "context", "output": "answer"}
    records = read_records(path, columns=columns)
    assert str(records.tables[0]) == "alpaca: question, context, answer; 10,580 rows"


@pytest.mark.parametrize(
    "name", ["hh_rlhf_harmless_base_test.jsonl.gz", "instruction_data_with_preference_1100.json"]
)
def test_published_preferences_are_refused_by_name(shared_data, name):
    with pytest.raises(DataError, match="holds preferences"):
        read_records(shared_data / "preference" / name)
