"""DeepSpeed at every ZeRO stage, on one rank and on two, gives the numbers of plain PyTorch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.engine_ranks import STAGES, recipe_of
from tests.learners import run_steps, tiny_learner

ROOT = Path(__file__).resolve().parents[4]
TIMES = {"time/learn_s", "time/publish_s"}


def run_group(world_size: int, folder: Path, *others: Path) -> Path:
    """Run a group of ranks to its end; return its folder."""
    program = (sys.executable, "-m", "tests.engine_ranks")
    ranks = [
        subprocess.Popen(
            [*program, *(str(one) for one in (rank, world_size, folder, *others))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    said = [rank.communicate(timeout=900) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world_size, [err[-2000:] for _, err in said]
    (folder / "said.txt").write_text("".join(f"{out}{err}" for out, err in said))
    return folder


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_group(1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two_ranks(one_rank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_group(2, tmp_path_factory.mktemp("two"), one_rank)


@pytest.fixture(scope="module")
def one_rank_after_two(two_ranks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_group(1, tmp_path_factory.mktemp("again"), two_ranks)


@pytest.fixture(params=["one_rank", "two_ranks"])
def ran(request: pytest.FixtureRequest) -> Path:
    """Folder of a finished group of ranks."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("stage", STAGES)
def test_the_numbers_are_those_of_plain_pytorch(stage: int, ran: Path, tmp_path: Path) -> None:
    found = json.loads((ran / "found.json").read_text())[str(stage)]
    learner, policy = tiny_learner(recipe_of(stage), tmp_path)
    learner.start()
    outputs = run_steps(learner, 0, 4)
    assert found["metrics"][0]["learn/loss"] == pytest.approx(math.log(2), abs=1e-6)
    for one, output in zip(found["metrics"], outputs, strict=True):
        assert one.keys() == output.metrics.keys()
        for name in one.keys() - TIMES:
            assert one[name] == pytest.approx(output.metrics[name], rel=1e-4, abs=1e-5), name
    assert max(one["optimizer/grad_norm"] for one in found["metrics"]) > 0.5, "clipping is tested"
    weights = load_file(ran / f"{stage}.safetensors")
    for name, tensor in policy.weights().items():
        # AdamW takes the sign of gradients that are nothing but rounding.
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_a_restored_group_goes_on_bit_for_bit(stage: int, ran: Path) -> None:
    found = json.loads((ran / "found.json").read_text())[str(stage)]
    assert found["loop_state"] == {"step": 2}
    assert found["restored"] == [found["digests"][1:]] * 2, "from whole tensors and from slices"
    assert len(set(found["digests"])) == 4


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("group", ["two_ranks", "one_rank_after_two"])
def test_a_checkpoint_serves_another_number_of_ranks_and_another_stage(
    stage: int, group: str, request: pytest.FixtureRequest
) -> None:
    found = json.loads((request.getfixturevalue(group) / "found.json").read_text())[str(stage)]
    assert [len(metrics) for metrics in found["resized"]] == [2, 2], "whole and in slices"
    resized = [one for metrics in found["resized"] for one in metrics]
    for one, expected in zip(resized, 2 * found["metrics"][2:], strict=True):
        for name in one.keys() - TIMES:
            assert one[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_each_rank_writes_its_own_slices_and_no_more(stage: int, two_ranks: Path) -> None:
    whole = load_file(two_ranks / f"stage-{stage}/step-000002/optimizer.safetensors")
    files = sorted((two_ranks / f"slices-{stage}/step-000002/optimizer").glob("*"))
    assert len(files) == 2
    shares = [load_file(file) for file in files]
    size = sum(tensor.numel() for tensor in whole.values())
    for share in shares:
        assert 0.4 * size < sum(tensor.numel() for tensor in share.values()) < 0.6 * size
    for name, tensor in whole.items():
        parts = [share[name] for share in shares if name in share]
        assert sum(part.numel() for part in parts) == tensor.numel(), name
    assert not list(files[0].parent.parent.glob("optimizer.safetensors"))


def test_a_rehearsal_on_two_ranks_leaves_nothing_behind(two_ranks: Path) -> None:
    """That it changes no number is what the tests above say: every group was rehearsed."""
    assert not list(two_ranks.glob("*/rehearsal"))
    assert not list(two_ranks.glob("apart-0/*"))


def test_a_rank_that_does_not_see_the_checkpoint_fails_in_the_rehearsal(two_ranks: Path) -> None:
    said = (two_ranks / "apart-1.txt").read_text()
    assert said.startswith("rank 1 does not see the checkpoint that rank 0 wrote")
    assert "checkpoint.location" in said
    assert not (two_ranks / "apart-0.txt").exists()


def test_only_trained_tensors_are_made_whole(ran: Path) -> None:
    """Publication, checkpoint and swap, at ZeRO 3; `engine_ranks` adds a large frozen layer."""
    found = json.loads((ran / "found.json").read_text())
    for stage in STAGES:
        kept = found[str(stage)]["kept"]
        # A swap has policy and reference.
        assert kept["gathered"] == (2 * kept["trained"] if stage == 3 else 0)


def test_the_reference_is_shared_out_at_stage_3(two_ranks: Path) -> None:
    found = json.loads((two_ranks / "found.json").read_text())
    for stage in STAGES:
        kept = found[str(stage)]["kept"]
        # Shares are rounded up, once for each of the six tensors.
        half, whole = kept["trained"] // 2, kept["trained"]
        assert kept["reference"] in (range(half, half + 6) if stage == 3 else [whole])


def test_nothing_is_compiled_and_little_is_said(ran: Path) -> None:
    said = (ran / "said.txt").read_text()
    assert "ninja" not in said
    assert "built successfully" not in said
    # A rehearsal's step is void, which DeepSpeed says; there is one for each stage.
    others = [line for line in said.splitlines() if "OVERFLOW" not in line]
    assert (len(others), len(said.splitlines()) <= len(STAGES)) == (0, True), said
