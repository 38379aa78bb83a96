"""Tables of every kind: what is written is what is read, or an error that names file and row."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume, example, given
from hypothesis import strategies as st

from videorl.config import RewardConfig
from videorl.data.clips import Clip, find_clips
from videorl.data.preferences import read_preferences
from videorl.data.prompt_files import read_prompts
from videorl.data.prompt_rows import PromptRow
from videorl.data.score_reading import read_scores
from videorl.data.score_table import open_scores
from videorl.data.table_rows import BadRow, Columns
from videorl.data.tables import BLANK, READERS, read_rows
from videorl.data.text_files import problem_of
from videorl.errors import TableError, VideorlError
from videorl.reward_training.pairs import read_pairs
from videorl.reward_training.ratings import COLUMNS as RATING_COLUMNS
from videorl.reward_training.ratings import read_ratings
from videorl.types import Score

AWKWARD = "\",;\t\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\ufeff\\'{}[] aé🐻‍\u0300"
"""Separators of some program or other, and characters of one to four bytes."""
TEXTS = st.text(st.sampled_from(AWKWARD) | st.characters(codec="utf-8", exclude_characters="\0"))
HALVES = st.text(st.characters(exclude_characters="\0"), max_size=9)
"""With lone surrogates, which JSON can escape."""
PLACES = st.floats(0, 1, exclude_max=True)
"""Shares of a file's length, since Arrow does not always write the same table in as many bytes."""
COLUMNS = Columns(("video", "prompt"), ("id",))


@contextmanager
def file_with(content: bytes, suffix: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"table{suffix}")
        path.write_bytes(content)
        yield path


def rows_of(content: bytes, suffix: str, columns: Columns = COLUMNS) -> list[Any]:
    with file_with(content, suffix) as path:
        return [row for _, row in read_rows(path, columns) if row is not BLANK]


TEXT_TYPES: list[Callable[[Sequence[str | None]], pa.Array]] = [
    lambda values: pa.array(values, pa.string()),
    lambda values: pa.array(values, pa.large_string()),
    lambda values: pa.array(values, pa.string_view()),
    lambda values: pa.array(values, pa.string()).dictionary_encode(),
    lambda values: pa.array(values, pa.large_string()).dictionary_encode(),
    lambda values: pa.array(values, pa.string()).cast(pa.dictionary(pa.uint32(), pa.string())),
    lambda values: pa.DictionaryArray.from_arrays(
        pa.array([None if value is None else n for n, value in enumerate(values)], pa.int64()),
        pa.array([value or "" for value in values], pa.large_string()),
        ordered=True,
    ),
]


@st.composite
def parquet_files(draw: st.DrawFn) -> tuple[list[dict[str, Any]], bytes]:
    """Return rows of texts and numbers, and the file that some program made of them."""
    count = draw(st.integers(0, 12))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(st.none() | values, min_size=count, max_size=count))

    arrays = {
        name: draw(st.sampled_from(TEXT_TYPES))(column(TEXTS)) for name in ("video", "prompt")
    }
    whole, kinds = st.integers(-100, 100), (pa.int8(), pa.int64(), pa.float64(), pa.decimal128(9))
    arrays["id"] = pa.array(column(whole), draw(st.sampled_from(kinds)))
    lists = (pa.list_, pa.large_list, pa.list_view)
    arrays["other"] = pa.array(column(st.lists(TEXTS)), draw(st.sampled_from(lists))(pa.string()))
    table = pa.table(arrays).select(draw(st.permutations(list(arrays))))
    file = io.BytesIO()
    pq.write_table(
        table,
        file,
        row_group_size=draw(st.integers(1, 5)),
        use_dictionary=draw(st.booleans()),
        compression=draw(st.sampled_from(["none", "snappy", "zstd"])),
        data_page_version=draw(st.sampled_from(["1.0", "2.0"])),
        store_schema=draw(st.booleans()),
    )
    return table.select(["video", "prompt", "id"]).to_pylist(), file.getvalue()


@given(parquet_files())
def test_parquet_of_any_type_of_arrow(written: tuple[list[dict[str, Any]], bytes]) -> None:
    rows, content = written
    assert rows_of(content, ".parquet") == rows


@given(
    parquet_files(),
    st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=8),
    st.none() | PLACES,
)
def test_parquet_that_is_damaged_is_refused_or_read(
    written: tuple[list[dict[str, Any]], bytes],
    changes: list[tuple[float, int]],
    end: float | None,
) -> None:
    damaged = bytearray(written[1])
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    if end is not None:
        del damaged[int(end * len(damaged)) :]
    with file_with(bytes(damaged), ".pq") as path:
        try:
            list(read_rows(path, COLUMNS))
        except TableError as error:
            assert str(path) in str(error)


@st.composite
def csv_files(draw: st.DrawFn) -> tuple[list[dict[str, str]], bytes]:
    names = ("video", "prompt", "id")
    rows = draw(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=6))
    file = io.StringIO()
    styles: list[Any] = [csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]
    # Python's own writer leaves line ends that are not its own without quotes.
    has_line_ends = any(end in value for end in "\r\n" for row in rows for value in row)
    writer = csv.writer(
        file,
        quoting=csv.QUOTE_ALL if has_line_ends else draw(st.sampled_from(styles)),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    writer.writerows([names, *rows])
    mark = draw(st.sampled_from(["", "\ufeff"]))
    return [dict(zip(names, row, strict=True)) for row in rows], (mark + file.getvalue()).encode()


@given(csv_files())
def test_csv(written: tuple[list[dict[str, str]], bytes]) -> None:
    rows, content = written
    # A value without quotes loses the spaces before it, and a row without values is blank.
    wanted = [row for row in rows if any(value.strip() for value in row.values())]
    found = rows_of(content, ".csv")
    assert [_stripped(row) for row in found] == [_stripped(row) for row in wanted]


def _stripped(row: dict[str, str]) -> dict[str, str]:
    return {name: value.lstrip(" ") for name, value in row.items()}


@given(csv_files(), st.data())
def test_csv_that_is_damaged_never_makes_up_a_row(
    written: tuple[list[dict[str, str]], bytes], data: st.DataObject
) -> None:
    """A field too many or too few costs its row alone."""
    rows, _ = written
    assume(rows)
    bad = data.draw(st.integers(0, len(rows) - 1))
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    fields = [list(row.values()) for row in rows]
    fields[bad] = data.draw(st.sampled_from([["x"], ["x", "y"], [*fields[bad], "more"]]))
    writer.writerows([list(rows[0]), *fields])
    found = rows_of(file.getvalue().encode(), ".csv")
    blank = [not any(value.strip() for value in row) for row in fields]
    expected = [row for n, row in enumerate(rows) if n != bad and not blank[n]]
    assert [row for row in found if not isinstance(row, BadRow)] == expected
    assert sum(isinstance(row, BadRow) for row in found) == 1


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | HALVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HALVES, inner, max_size=3),
    max_leaves=6,
)
JSON_ROWS = st.fixed_dictionaries({"video": HALVES, "prompt": JSON_VALUES, "x": JSON_VALUES})


@given(
    st.lists(JSON_ROWS, max_size=6),
    st.sampled_from([".json", ".jsonl"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_json(rows: list[dict[str, Any]], suffix: str, end: str, is_ascii: bool) -> None:
    if suffix == ".json":
        text = json.dumps(rows, ensure_ascii=is_ascii, indent=1 if is_ascii else None)
    else:
        text = "".join(json.dumps(row, ensure_ascii=is_ascii) + end for row in rows)
    assert rows_of(text.encode("utf-8", "surrogatepass"), suffix) == rows


@given(st.lists(HALVES, min_size=1, max_size=8), st.sampled_from([".json", ".jsonl"]))
@example(["a cat runs", "broken \ud83d emoji"], ".jsonl")
def test_half_characters_cost_their_prompt_alone(texts: list[str], suffix: str) -> None:
    lines = [json.dumps({"prompt": text}) for text in texts]
    content = "\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]"
    stripped = dict.fromkeys(text.strip() for text in texts)
    wanted = [text for text in stripped if text and not problem_of(text)]
    assert prompts_of(content.encode(), suffix) == (wanted or None)


def prompts_of(content: bytes, suffix: str) -> list[str] | None:
    """Return the prompts of a file; None if it is refused, by its name."""
    with file_with(content, suffix) as path:
        try:
            rows = read_prompts(path)
        except VideorlError as error:
            assert str(path) in str(error)
            return None
    assert all(isinstance(row, PromptRow) and row.text.strip() for row in rows)
    assert not any(problem_of(row.text) for row in rows)
    return [row.text for row in rows]


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
WORDS = st.text(st.sampled_from("aé\u2028\x85\x0c –“日🐻"), min_size=1, max_size=9)


@given(st.lists(WORDS, min_size=2, max_size=6), st.sampled_from([*ENCODINGS, "cp1252"]), st.data())
def test_lists_in_other_encodings_are_refused_not_misread(
    texts: list[str], encoding: str, data: st.DataObject
) -> None:
    suffix = data.draw(st.sampled_from([".txt", ".csv", ".jsonl", ".json"]))
    written = {
        ".txt": "\n".join(texts),
        ".csv": "\n".join(["prompt", *(f'"{text}"' for text in texts)]),
        ".jsonl": "\n".join(json.dumps(text, ensure_ascii=False) for text in texts),
        ".json": json.dumps(texts, ensure_ascii=False),
    }[suffix]
    found = prompts_of(written.encode(encoding, "ignore"), suffix)
    stripped = dict.fromkeys(text.strip() for text in texts if text.strip())
    if encoding.startswith("utf-8"):
        assert found == (list(stripped) or None)
    elif encoding.startswith("utf"):
        assert found is None
    else:
        raw = [text.encode(encoding, "ignore") for text in texts]
        # A few letters of other encodings happen to be one of UTF-8.
        assume(all(b.isascii() for b in raw if b.decode("utf-8", "ignore").encode() == b))
        assert set(found or ()) <= {text.decode(encoding).strip() for text in raw}


@given(st.binary(max_size=60) | HALVES.map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b'[{"prompt": "a"}, ')
@example(b"prompt\n\xff\n")
def test_any_bytes_under_any_name(content: bytes) -> None:
    for suffix in (*READERS, ".txt", "", ".yaml"):
        found = prompts_of(content, suffix)
        if suffix not in (".parquet", ".pq", ".yaml") and found:
            assert all(text.encode()[:1] not in (b"\0",) for text in found)


@given(st.lists(st.dictionaries(st.sampled_from(RATING_COLUMNS), JSON_VALUES), max_size=4))
def test_labels_of_any_values(rows: list[dict[str, Any]]) -> None:
    pairs = [{"path_A": "a.mp4", "path_B": "a.mp4", "prompt": "x"} | row for row in rows]
    for content in (json.dumps(rows), json.dumps(pairs)):
        with file_with(content.encode(), ".json") as path:
            path.with_name("a.mp4").touch()
            for read in (read_ratings, read_pairs):
                try:
                    read(path)
                except VideorlError as error:
                    assert str(path) in str(error)


NAMES = st.sampled_from(["a.mp4", "./b.mp4", "", "x", "a\0b", "x" * 300, "..", "/"])


@given(st.lists(st.tuples(NAMES | HALVES, JSON_VALUES | st.just("a\0b"))))
def test_videos_with_any_prompts_can_be_written_down(rows: list[tuple[str, Any]]) -> None:
    lines = [json.dumps({"video": video, "prompt": prompt}) for video, prompt in rows]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.mp4", "b.mp4"):
            Path(folder, name).touch()
        Path(folder, "prompts.jsonl").write_text("\n".join(lines))
        try:
            source = find_clips(Path(folder))
        except VideorlError:
            return
        keys = [*source.keys, *source.refused]
        assert {clip.key for clip in source.read(set(source.keys))} == set(source.keys)
        assert all(not problem_of(text) for key in keys for text in key)
        assert {"a.mp4", "b.mp4"} <= {video for video, _ in keys}


@given(st.lists(st.tuples(TEXTS, TEXTS, HALVES), unique_by=lambda row: row[:2], max_size=6))
def test_scores_come_back_for_any_texts(rows: list[tuple[str, str, str]]) -> None:
    clips = [Clip(video, prompt.strip(), "") for video, prompt, _ in rows]
    assume(len({clip.key for clip in clips}) == len(clips))
    results = [Score({"quality": 1.0}, 2.0) if n % 2 else why for n, (*_, why) in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scores.parquet")
        with open_scores(path, [RewardConfig(name="one")]) as table:
            if clips:
                table.add(clips, {"one": results})
            table.merge([clip.key for clip in clips])
        found = read_scores(path)
        for clip, result in zip(clips, results, strict=True):
            again = found.of(clip.key)
            assert again == result if isinstance(result, Score) else str(again).startswith("one: ")


@given(st.data())
def test_stored_pairs_of_any_type_of_arrow(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    prompts = data.draw(st.lists(st.none() | TEXTS, min_size=count, max_size=count))
    binary = data.draw(st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view()]))
    numbers = data.draw(st.sampled_from([pa.int32(), pa.uint8(), pa.int64()]))
    lists = data.draw(st.sampled_from([pa.list_, pa.large_list, pa.list_view]))
    arrays: dict[str, Any] = {"prompt": data.draw(st.sampled_from(TEXT_TYPES))(prompts)}
    for role in ("chosen", "rejected"):
        text = data.draw(st.sampled_from(TEXT_TYPES))
        arrays[f"{role}_latents"] = pa.array([bytes(4)] * count, binary)
        arrays[f"{role}_latents_shape"] = pa.array([[1, 1, 1, 1]] * count, lists(numbers))
        arrays[f"{role}_latents_dtype"] = text(["float32"] * count)
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table(arrays), Path(folder, "pairs.parquet"))
        wanted = [prompt for prompt in prompts if prompt is not None]
        try:
            found = read_preferences(Path(folder))
        except VideorlError:
            assert not wanted
            return
        assert list(found.prompts) == wanted
        assert [float(found.latents(n)[0]) for n in range(len(wanted))] == [0.0] * len(wanted)
