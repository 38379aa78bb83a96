"""Prompt files and the endless stream over them."""

import logging
from collections import Counter
from pathlib import Path

import pytest

from videorl.data.prompt_files import read_prompts
from videorl.data.prompt_rows import PromptRow
from videorl.data.prompts import PromptStream, check_sources, load_prompts
from videorl.errors import ConfigError, PromptError
from videorl.recipes.reading import load_recipe
from videorl.types import Prompt
from videorl.worlds import grammar


def texts(rows: list[PromptRow]) -> list[str]:
    return [row.text for row in rows]


def test_blank_and_duplicate_lines_are_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa cat\r\n\n  a dög \na cat\n\t\na cow".encode())
    with caplog.at_level(logging.WARNING):
        assert texts(read_prompts(path)) == ["a cat", "a dög", "a cow"]
    assert "skipped 2 blank and 1 duplicate rows, kept 3 prompts" in caplog.text


def test_clean_file_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a\nb\n")
    assert texts(read_prompts(path)) == ["a", "b"]
    assert caplog.text == ""


def test_unreadable_source_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(
        PromptError, match=r"No such file.*give `moving_shapes`, module:function, or a file"
    ):
        load_prompts(str(tmp_path / "absent.txt"), "train")
    with pytest.raises(PromptError, match="Is a directory"):
        load_prompts(str(tmp_path), "train")


def test_sources(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n")
    for split in ("train", "held_out"):
        assert texts(load_prompts(str(path), split)) == ["a cat"]
        assert texts(load_prompts("moving_shapes", split)) == grammar.prompts(split)
    with pytest.raises(PromptError, match="moving_shapes has no columns, but column 'text' is"):
        load_prompts("moving_shapes", "train", "text")


def test_stream_visits_each_text_once_per_epoch_in_changing_order() -> None:
    prompts = [f"prompt {i}" for i in range(20)]
    stream = PromptStream(prompts, seed=3)
    epochs = [[stream[20 * epoch + i].text for i in range(20)] for epoch in range(3)]
    assert all(sorted(epoch) == sorted(prompts) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [stream[i].index for i in (0, 19, 45)] == [0, 19, 45]


def test_stream_depends_on_seed_and_position_alone() -> None:
    prompts = [f"prompt {i}" for i in range(20)]
    forwards, again = PromptStream(prompts, seed=3), PromptStream(prompts, seed=3)
    expected = [forwards[i] for i in range(60)]
    assert [again[i] for i in reversed(range(60))] == expected[::-1]
    assert [PromptStream(prompts, seed=4)[i] for i in range(60)] != expected


def test_the_order_without_weights_stays_as_it_was() -> None:
    """Runs of earlier versions are resumed."""
    stream = PromptStream([f"prompt {i}" for i in range(6)], seed=3)
    order = [int(stream[index].text.removeprefix("prompt ")) for index in range(12)]
    assert order == [0, 3, 4, 2, 5, 1, 5, 2, 4, 1, 3, 0]


def test_stream_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(PromptError, match="at least one"):
        PromptStream([], seed=0)
    with pytest.raises(IndexError, match="-1"):
        PromptStream(["a"], seed=0)[-1]


def test_a_weight_is_how_often_a_prompt_is_drawn() -> None:
    rows = [
        PromptRow("often", weight=2),
        PromptRow("seldom", weight=0.5),
        PromptRow("never", weight=0),
    ]
    rows += [PromptRow(f"once {number}", weight=0.5) for number in range(5)]
    stream = PromptStream(rows, seed=1)
    size = len(rows)
    drawn = Counter(stream[index].text for index in range(500 * size))
    # Of 5 in all: 8 * 2 / 5 = 3.2 and 8 * 0.5 / 5 = 0.8 times per epoch.
    assert drawn["often"] / 500 == pytest.approx(3.2, abs=0.1)
    assert drawn["seldom"] / 500 == pytest.approx(0.8, abs=0.1)
    assert "never" not in drawn
    for epoch in range(20):
        counts = Counter(stream[epoch * size + place].text for place in range(size))
        assert counts["often"] in (3, 4), "rounded up or down in every epoch"
    again = PromptStream(rows, seed=1)
    assert [again[index] for index in reversed(range(60))][::-1] == [stream[i] for i in range(60)]


def test_classes_that_alternate_in_a_file_both_come_in_every_epoch() -> None:
    rows = [PromptRow(f"{i}", weight=0.5 if i % 2 else 1.5) for i in range(100)]
    stream = PromptStream(rows, seed=0)
    for epoch in range(50):
        seldom = sum(int(stream[100 * epoch + place].text) % 2 for place in range(100))
        assert 15 <= seldom <= 35, "a quarter of 100, within three standard deviations"


def test_weights_may_be_huge() -> None:
    rows = [PromptRow("a", weight=1.6e308), PromptRow("b", weight=8e307), PromptRow("c")]
    stream = PromptStream(rows, seed=0)
    drawn = Counter(stream[index].text for index in range(3000))
    assert drawn["a"] == pytest.approx(2000, abs=50)
    assert drawn["b"] == pytest.approx(1000, abs=50)


def test_equal_weights_change_nothing() -> None:
    names = [f"prompt {i}" for i in range(20)]
    weighted = PromptStream([PromptRow(name, weight=3.0) for name in names], seed=3)
    plain = PromptStream(names, seed=3)
    assert [weighted[i] for i in range(50)] == [plain[i] for i in range(50)]


def test_ids_and_tags_come_with_the_prompt() -> None:
    stream = PromptStream([PromptRow("a cat", "cat-1", ("animal", "slow"))], seed=0)
    assert stream[4] == Prompt(4, "a cat", "cat-1", ("animal", "slow"))


def test_prompts_of_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "prompts_of_mine.py"
    module.write_text(
        "def good(split): return ['of ' + split]\n"
        "def empty(split): return []\n"
        "def text(split): return 'a cat'\n"
        "def two(split, more): return []\n"
        "def broken(split): return {}[split]\n"
        "def twice(split): return ['a', ' ', 'a', 'b']\n"
        "def wrong(split):\n"
        "    from videorl.data.prompt_rows import PromptRow\n"
        "    return [PromptRow('a', weight=-1)]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert texts(load_prompts("prompts_of_mine:good", "train")) == ["of train"]
    assert texts(load_prompts("prompts_of_mine:good", "held_out")) == ["of held_out"]
    with pytest.raises(PromptError, match="prompts_of_mine:empty holds no prompt: it is empty"):
        load_prompts("prompts_of_mine:empty", "train")
    with pytest.raises(PromptError, match=r"must return a list of texts or of .*, got 'a cat'"):
        load_prompts("prompts_of_mine:text", "train")
    with pytest.raises(PromptError, match=r"evaluation\.source=.*broken failed \(KeyError: 'held"):
        load_prompts("prompts_of_mine:broken", "held_out")
    with pytest.raises(PromptError, match=r"wrong failed \(PromptError: weight must be a number"):
        load_prompts("prompts_of_mine:wrong", "train")
    assert texts(load_prompts("prompts_of_mine:twice", "train")) == ["a", "b"]
    with pytest.raises(ConfigError, match=r"prompts\.source=.* must be a function of the split"):
        load_recipe("moving_shapes", ["prompts.source=prompts_of_mine:two"])


def test_held_out_prompts_that_are_trained_on_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train.txt").write_text("a cat\na dog\n")
    (tmp_path / "new.txt").write_text("a cow\n")
    (tmp_path / "old.txt").write_text("a cow\nA  Dog\n")

    def check(held_out: str, run: str = "run") -> None:
        sources = {"prompts": "train", "evaluation": held_out}
        files = [f"{key}.source={tmp_path / name}.txt" for key, name in sources.items()]
        check_sources(load_recipe("moving_shapes", [*files, f"run_dir={tmp_path / run}"]))

    check("new")
    with pytest.raises(ConfigError, match=r"1 of 2 held-out prompts are trained on, .*'A  Dog'"):
        check("old")
    with pytest.raises(ConfigError, match="2 of 2 held-out"):
        check("train")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/metrics.jsonl").write_text("")
    check("old", "begun")
    assert "1 of 2 held-out prompts are trained on" in caplog.text
    check_sources(load_recipe("moving_shapes"))
