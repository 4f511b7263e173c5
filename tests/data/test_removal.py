from cleangpt2.data.prepare import prepare
from cleangpt2.data.removal import remove


def test_nothing_else_in_the_folder_is_touched(corpus, tokenizer, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "train-notes.bin").write_text("mine")
    prepare([str(corpus)], tokenizer, out, fresh=True)
    prepare([str(corpus)], tokenizer, out, fresh=True)
    remove(out)
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "train-notes.bin"]
