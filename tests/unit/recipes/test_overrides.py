"""What is typed on a command line is what is resolved."""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.recipes.reading import (
    find_recipe,
    load_recipe,
    load_rewards,
    merged_recipe,
    to_yaml,
)

TYPED = [
    "runs/exp #2",
    "… #bad",
    "001",
    "null",
    "true",
    "1e-3",
    "2026-11-28",
    "a=b",
    "'quoted'",
    '"half',
    "[list]",
    "{a: b}",
    "key: value",
    "- item",
    "~",
    "~/runs",
    "*alias",
    "&anchor",
    "!tag",
    "%",
    "@at",
    " spaced ",
    "C:\\runs",
    "$HOME",
    "line\nline",
]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(
    lambda text: "${" not in text and text != "???"
)


@pytest.mark.parametrize("text", TYPED)
def test_a_text_setting_is_taken_literally(text: str) -> None:
    keys = ("name", "run_dir", "sampling.negative_prompt", "checkpoint.location")
    made = load_recipe("moving_shapes", [f"{key}={text}" for key in keys])
    found = (made.name, made.run_dir, made.sampling.negative_prompt, made.checkpoint.location)
    is_in_shell = text.startswith(("~", "$"))  # in paths these stand for what they do there
    path = os.path.expanduser(os.path.expandvars(text)) if is_in_shell else text
    assert found == (text, path, text, path)
    (reward,) = load_rewards(["vision_reward"], None, [f"rewards.0.label={text}"])
    assert reward.label == text


@settings(deadline=None, max_examples=20)
@given(texts)
def test_any_text_is_resolved_as_typed_and_read_again_from_a_run_folder(text: str) -> None:
    made = load_recipe("moving_shapes", [f"sampling.negative_prompt={text}"])
    assert made.sampling.negative_prompt == text
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(to_yaml(made))
        assert load_recipe(str(path)) == made


def test_an_optional_text_is_none_only_if_null_is_typed() -> None:
    def initial(text: str) -> str | None:
        return load_recipe("moving_shapes", [f"policy.lora.initial={text}"]).policy.lora.initial

    assert initial("null") is None
    assert initial("") is None
    assert initial("l#/style #2") == "l#/style #2"
    assert initial("~") == os.path.expanduser("~"), "the home folder, and not YAML's null"


def test_texts_of_options_are_not_cut_either() -> None:
    (reward,) = load_rewards(
        ["vision_reward"],
        None,
        ["rewards.0.runtime_env.working_dir=a #b", "rewards.0.runtime_env.pip=[a, 'b #c']"],
    )
    assert reward.runtime_env == {"working_dir": "a #b", "pip": ["a", "b #c"]}


def test_a_run_folder_keeps_texts_that_look_like_references(tmp_path: Path) -> None:
    """`\\${` is how a recipe writes a text with `${`."""
    path = tmp_path / "recipe.yaml"
    path.write_text("base: moving_shapes\nname: cost\nsampling: {negative_prompt: 'a \\${b} c'}\n")
    made = load_recipe(str(path))
    assert made.sampling.negative_prompt == "a ${b} c"
    (tmp_path / "config.yaml").write_text(to_yaml(made))
    assert load_recipe(str(tmp_path / "config.yaml")) == made


@pytest.mark.parametrize("value", ["001", "1e3", "12", "no", "null"])
def test_a_number_in_a_file_is_no_text_and_must_be_quoted(value: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"base: moving_shapes\nname: {value}\n")
    with pytest.raises(ConfigError, match=r"name must be text \(in quotes"):
        load_recipe(str(path))
    path.write_text(f"base: moving_shapes\nname: '{value}'\n")
    assert load_recipe(str(path)).name == value


def typed_settings(schema: type, prefix: str = "") -> list[tuple[str, Any]]:
    """Return dotted key and type of every setting of a recipe that is no section."""
    found: list[tuple[str, Any]] = []
    for name, hint in get_type_hints(schema).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found += typed_settings(hint, f"{prefix}{name}.")
        elif get_origin(hint) is not ClassVar and name not in ("rewards", "rule"):
            found.append((f"{prefix}{name}", hint))
    return [(key, hint) for key, hint in found if key != "objective.name"]


# Inside YAML, control characters are refused and line breaks folded.
lines = texts.filter(lambda text: text.isprintable())
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    str | None: st.none() | texts.filter(lambda text: text not in ("", "null")),
    int: st.integers(-(2**40), 2**40),
    float: st.floats(allow_nan=False),
    float | None: st.none() | st.floats(allow_nan=False),
    bool: st.booleans(),
    int | str: st.integers(-(2**40), 2**40) | st.just("auto"),
    bool | str: st.booleans() | st.just("auto"),
    list[float]: st.lists(st.floats(allow_nan=False), max_size=3),
    list[int]: st.lists(st.integers(-(2**40), 2**40), max_size=3),
    list[str]: st.lists(lines, max_size=3),
    dict[str, float]: st.dictionaries(lines, st.floats(allow_nan=False), max_size=3),
    dict[str, list[float]]: st.dictionaries(
        lines, st.lists(st.floats(allow_nan=False), max_size=3), max_size=3
    ),
}


def as_typed(value: Any) -> str:
    """Return what a user would type for a value: YAML, and texts as they are."""
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False).replace("Infinity", ".inf")
    )


def test_every_type_of_a_setting_is_tried() -> None:
    assert {hint for _, hint in typed_settings(Recipe)} <= VALUES.keys()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_setting_is_resolved_as_typed(data: st.DataObject) -> None:
    key, hint = data.draw(st.sampled_from(typed_settings(Recipe)))
    value = data.draw(VALUES[hint])
    merged = merged_recipe(Recipe, find_recipe("moving_shapes"), [f"{key}={as_typed(value)}"])
    assert OmegaConf.select(merged, key) == value


@pytest.mark.parametrize("value", [True, False, "auto"])
def test_a_setting_may_be_a_word_or_a_truth_value(value: bool | str) -> None:
    typed = f"policy.gradient_checkpointing={str(value).lower()}"
    assert load_recipe("moving_shapes", [typed]).policy.gradient_checkpointing == value
    with pytest.raises(ConfigError, match="gradient_checkpointing must be true or false, got 1"):
        load_recipe("moving_shapes", ["policy.gradient_checkpointing=1"])
