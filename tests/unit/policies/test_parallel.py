"""Which videos can be shared among how many processes."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from videorl.errors import ConfigError
from videorl.planning.published import PUBLISHED
from videorl.policies import parallel
from videorl.policies.parallel import check_sharing, num_tokens, problem_of_degree
from videorl.policies.wan import Wan
from videorl.recipes.sharing import RING_BACKENDS
from videorl.settings.model import SamplingConfig

WAN_14B = PUBLISHED["wan-ai/wan2.1-t2v-14b-diffusers"]
HD = SamplingConfig(num_frames=81, height=720, width=1280)


@pytest.mark.parametrize(
    ("transformer", "latents", "tokens"),
    [
        ({"patch_size": [1, 2, 2]}, (21, 90, 160), 75_600),
        ({"patch_size": 2}, (13, 60, 90), 17_550),
        ({"patch_size": 2, "patch_size_t": 2}, (21, 96, 170), 11 * 48 * 85),
    ],
)
def test_tokens_are_counted_as_the_models_cut_them(
    transformer: dict[str, Any], latents: tuple[int, int, int], tokens: int
) -> None:
    assert num_tokens(transformer, latents) == tokens


def test_heads_and_tokens_must_divide() -> None:
    assert problem_of_degree(4, 40, 75_600) is None
    assert problem_of_degree(4, 30, 17_550) == (
        "must divide the 30 heads of the transformer and the 17550 tokens of a video of this size: "
        "one of 1, 2, 3, 5, 6, 10, 15, 30"
    )


@pytest.mark.parametrize("degree", [1, 2, 4, 5, 8])
def test_a_published_model_of_14b_can_be_shared_at_720p(degree: int) -> None:
    check_sharing("wan", WAN_14B, HD, degree, "learner.context_parallel")


def test_what_does_not_divide_names_setting_and_choices() -> None:
    with pytest.raises(ConfigError, match=r"^learner\.context_parallel=3 must divide the 40 heads"):
        check_sharing("wan", WAN_14B, HD, 3, "learner.context_parallel")


def test_in_a_ring_heads_need_not_divide() -> None:
    check_sharing("wan", WAN_14B, HD, 3, "learner.context_parallel", by_ring=True)
    said = (
        r"^learner\.context_parallel=11 must divide the 75600 tokens of a video of this size: "
        r"one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14 \.\.\.$"
    )
    with pytest.raises(ConfigError, match=said):
        check_sharing("wan", WAN_14B, HD, 11, "learner.context_parallel", by_ring=True)


@pytest.mark.parametrize("family", ["cogvideox", "ltx_video"])
def test_what_shares_by_a_plan_of_its_own_has_no_ring(family: str) -> None:
    with pytest.raises(ConfigError, match=r"must be ulysses for policy\.family=.*, got ring"):
        check_sharing(family, WAN_14B, HD, 2, "learner.context_parallel", by_ring=True)


def test_a_ring_needs_back_ends_that_hand_out_their_normaliser() -> None:
    dispatch: Any = import_module("diffusers.models.attention_dispatch")
    registry = dispatch._AttentionBackendRegistry
    assert set(RING_BACKENDS) <= registry._supports_context_parallel
    for name in RING_BACKENDS:
        function = registry._backends[dispatch.AttentionBackendName(name)]
        options = inspect.signature(function).parameters
        assert {"return_lse", "return_attn_probs"} & options.keys(), name


def test_a_family_without_a_plan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Wan()
    family.model_classes = {"transformer": SimpleNamespace(__name__="Mochi")}
    monkeypatch.setattr(parallel, "load_family", lambda name: family)
    with pytest.raises(ConfigError, match=r"policy\.family=mine cannot be shared: Mochi has no"):
        check_sharing("mine", WAN_14B, HD, 2, "generators.context_parallel")
