from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from videorl.config import SamplingConfig
from videorl.serving.errors import RequestError
from videorl.serving.limits import ServingLimits
from videorl.serving.requests import Offer, VideoTask, complete, read_fields

USUAL = SamplingConfig(num_frames=9, height=32, width=48, fps=8.0, num_inference_steps=8)
OFFER = Offer("shapes", USUAL, ("aligned", "second", "base"), ("motion",))
LIMITS = ServingLimits(max_pixels=10_000_000, max_steps=50)


def task(**fields: Any) -> VideoTask:
    return complete(read_fields({"prompt": "a circle", **fields}), OFFER, LIMITS)


def refused(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        task(**fields)
    return error.value


def test_what_is_left_out_is_as_the_recipe_has_it() -> None:
    assert task().sampling == USUAL
    assert task().adapter == "aligned"
    assert 0 <= task().seed < 2**31
    assert len({task().seed for _ in range(4)}) > 1


def test_fields_may_be_the_texts_of_a_form() -> None:
    found = task(
        size="64x32",
        seconds="2",
        fps="4",
        num_inference_steps="5",
        guidance_scale="2.5",
        seed="7",
        negative_prompt="blur",
        lora='{"name": "second"}',
        extra_params='{"guide": {"motion": 1.5}, "max_factor": 3}',
    )
    wanted = replace(
        USUAL,
        width=64,
        num_frames=8,
        fps=4.0,
        num_inference_steps=5,
        guidance_scale=2.5,
        negative_prompt="blur",
    )
    assert found == VideoTask("a circle", wanted, 7, "second", {"motion": 1.5}, 3.0)
    assert found.seconds == 2


def test_an_adapter_is_chosen_by_lora_or_by_model() -> None:
    assert task(model="second").adapter == task(lora="second").adapter == "second"
    assert task(model="shapes").adapter == "aligned"
    assert task(model="shapes", lora="base").adapter == "base"
    assert "two adapters" in str(refused(model="second", lora="base"))


@pytest.mark.parametrize(
    ("fields", "param", "status", "said"),
    [
        ({"prompt": "x" * 100_000}, "prompt", 422, "at most 10000 characters"),
        ({"prompt": " "}, "prompt", 422, "blank"),
        ({"prompt": "\ud800"}, "prompt", 422, "unicode"),
        ({"size": "32"}, "size", 422, "pattern"),
        ({"size": "32x32", "width": 48}, "size", 422, "contradict"),
        ({"width": 0}, "width", 422, "greater than or equal to 1"),
        ({"seconds": 1, "num_frames": 9}, "seconds", 422, "only one"),
        ({"fps": "nan"}, "fps", 422, "finite"),
        ({"guidance_scale": float("inf")}, "guidance_scale", 422, "got 'inf'|finite|less than"),
        ({"seed": -1}, "seed", 422, "greater than or equal to 0"),
        ({"num_inference_steps": 51}, "num_inference_steps", 422, "at most 50"),
        ({"width": 16_000, "height": 16_000}, "size", 422, "this server samples at most"),
        ({"lora": "../runs/a"}, "lora", 404, "there are aligned, second, base"),
        ({"lora": {"name": "second", "path": "/etc"}}, "lora", 422, "never from a path"),
        ({"lora": "{"}, "lora", 422, "not JSON"),
        ({"model": "sora"}, "model", 404, "there are shapes, aligned"),
        ({"extra_params": {"guide": {"taste": 1}}}, "extra_params", 422, "scores motion"),
        ({"extra_params": {"max_factor": 2}}, "extra_params", 422, "no extra_params.guide"),
        ({"extra_params": {"gide": {}}}, "extra_params", 422, "no field gide"),
        ({"remix": 1}, "remix", 422, "no field remix"),
    ],
)
def test_a_refusal_names_the_field_and_what_it_may_be(
    fields: dict[str, Any], param: str, status: int, said: str
) -> None:
    error = refused(**fields)
    assert (error.param, error.status) == (param, status)
    assert any(part in str(error) for part in said.split("|")), error
    assert len(str(error)) < 500
    assert error.body()["error"].keys() == {"message", "type", "param", "code"}


def test_guidance_without_a_latent_reward_says_how_to_load_one() -> None:
    fields = read_fields({"prompt": "a", "extra_params": {"guide": {"motion": 1}}})
    with pytest.raises(RequestError, match="--latent-reward"):
        complete(fields, replace(OFFER, dimensions=()), LIMITS)


def test_only_tasks_of_one_size_and_adapter_share_a_batch() -> None:
    one, other = task(seed=1), task(prompt="a square", seed=2)
    assert one.group == other.group
    assert one.group != task(width=64).group
    assert one.group != task(lora="base").group
    guided = {"extra_params": {"guide": {"motion": 1}}}
    assert task(**guided).group != task(**guided).group
