"""Parts of the user's own, wherever a recipe names one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from videorl import rewards
from videorl.errors import ConfigError, RewardError
from videorl.evaluation.unseen import UnseenMetrics
from videorl.recipes.reading import load_recipe
from videorl.settings.plugins import accepts, find
from videorl.types import Video

OWN = """
from videorl.types import Score

class Bright:
    dimensions = ("bright",)

    def __init__(self, scale=1.0):
        self.scale = scale

    def score(self, videos, prompts):
        return [Score({"bright": self.scale}, self.scale) for _ in videos]

class Assigned(Bright):
    def __init__(self):
        self.dimensions = ("late",)

class NoScore:
    dimensions = ("bright",)

class OtherScore:
    dimensions = ("bright",)

    def score(self, videos):
        return []

def make(path, scale):
    return Bright(scale)

def make_nothing():
    return object()

def measure(video):
    return {"frames": len(video.frames)}

def measure_nan(video):
    return {"frames": float("nan")}

def measure_badly(video):
    raise KeyError("lost")

def measure_known(video):
    return {"sharpness": 1.0}

def measure_two(video, prompt):
    return {}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"plug_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return name


def reward(name: str, more: str = "") -> list[str]:
    return [f"rewards=[{{name: '{name}'{more}}}]"]


def test_a_reward_of_the_users_own_is_loaded_with_its_options(own: str) -> None:
    load_recipe("moving_shapes", reward(f"{own}:Bright", ", options: {scale: 3}"))
    model = rewards.load(f"{own}:Bright", None, scale=3.0)
    assert [score.total for score in model.score([1, 2], ["a", "b"])] == [3.0, 3.0]  # pyright: ignore
    load_recipe("moving_shapes", reward(f"{own}:make", ", path: there, options: {scale: 3}"))
    assert rewards.load(f"{own}:make", "there", scale=2.0).dimensions == ("bright",)
    load_recipe("moving_shapes", reward(f"{own}:Assigned"))


@pytest.mark.parametrize(
    ("part", "more", "expected"),
    [
        ("NoScore", "", "is no reward model: no score"),
        ("OtherScore", "", "score(self, videos) instead of score(self, videos, prompts)"),
        ("Bright", ", options: {size: 1}", "cannot be called with (size), its path and options"),
        ("Bright", ", path: there, options: {scale: 1}", "cannot be called with (path, scale)"),
        ("Brigth", "", "has no 'Brigth'; did you mean Bright?"),
    ],
)
def test_what_is_wrong_with_a_reward_is_said_when_the_recipe_is_read(
    part: str, more: str, expected: str, own: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_recipe("moving_shapes", reward(f"{own}:{part}", more))
    assert expected in str(raised.value)
    assert f"rewards.0.name={own}:{part}" in str(raised.value)


def test_a_function_that_makes_no_reward_model_is_found_when_it_is_called(own: str) -> None:
    load_recipe("moving_shapes", reward(f"{own}:make_nothing"))
    with pytest.raises(RewardError, match="made no reward model: no dimensions, no score"):
        rewards.load(f"{own}:make_nothing")


def test_refl_needs_a_gradient_of_an_own_reward_too(own: str) -> None:
    with pytest.raises(ConfigError, match=r"rewards\.0\.name must have a gradient"):
        load_recipe("moving_shapes_refl", reward(f"{own}:Bright"))
    followed = "name: video_reward, path: moving_shapes_reward"
    watching = f"{{name: '{own}:Bright', label: own, weight: 0}}"
    recipe = load_recipe("moving_shapes_refl", [f"rewards=[{{{followed}}}, {watching}]"])
    assert [each.weight for each in recipe.rewards] == [1.0, 0.0], "what only watches needs none"


def test_own_metrics_are_measured_beside_the_built_in_ones(own: str) -> None:
    video = Video(np.zeros((3, 8, 8, 3), np.uint8), 8.0)
    found = UnseenMetrics((f"{own}:measure",))(video)
    assert found["frames"] == 3.0
    assert found.keys() == {"frames", *UnseenMetrics()(video)}
    with pytest.raises(ConfigError, match="must return a mapping of names to finite numbers"):
        UnseenMetrics((f"{own}:measure_nan",))(video)
    with pytest.raises(ConfigError, match=r"failed on a video of shape .*KeyError: 'lost'"):
        UnseenMetrics((f"{own}:measure_badly",))(video)
    with pytest.raises(ConfigError, match="returned sharpness, which another metric has already"):
        UnseenMetrics((f"{own}:measure_known",))(video)
    load_recipe("moving_shapes", [f"metrics.unseen=['{own}:measure']"])
    with pytest.raises(ConfigError, match=r"metrics\.unseen\.0=.* must be a function of a Video"):
        load_recipe("moving_shapes", [f"metrics.unseen=['{own}:measure_two']"])


def test_a_family_of_the_users_own_is_checked(own: str) -> None:
    load_recipe("moving_shapes", ["policy.family=videorl.policies.wan:Wan"])
    with pytest.raises(ConfigError, match=r"policy\.family=.*:NoScore is no family: no "):
        load_recipe("moving_shapes", [f"policy.family={own}:NoScore"])


def test_arguments_are_counted_and_named() -> None:
    assert accepts(lambda a, b: None, 2)
    assert not accepts(lambda a, b: None, 1)
    assert accepts(lambda *a, key=0: None, 3, key=1)
    assert not accepts(lambda a: None, 1, key=1)


def test_a_name_without_a_table_must_be_a_path() -> None:
    with pytest.raises(ConfigError, match="here must be one of a, or module:attribute, got b"):
        find("b", {"a": "x:y"}, "here")
