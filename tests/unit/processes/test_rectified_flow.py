"""Rectified flow: the straight line between video and noise."""

from __future__ import annotations

import pytest
import torch

from videorl.processes.rectified_flow import RectifiedFlow

X0 = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
NOISE = torch.tensor([[[-1.0, 0.0]], [[5.0, 2.0]]])


def test_corrupt_by_hand_with_a_time_per_item() -> None:
    found = RectifiedFlow().corrupt(X0, NOISE, torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(found, torch.tensor([[[0.5, 1.5]], [[4.0, 3.0]]]))


def test_time_0_is_the_video_and_time_1_the_noise() -> None:
    process = RectifiedFlow()
    assert torch.equal(process.corrupt(X0, NOISE, torch.zeros(2)), X0)
    assert torch.equal(process.corrupt(X0, NOISE, torch.ones(2)), NOISE)


def test_the_target_is_the_velocity_of_the_path() -> None:
    process, t_B, step = RectifiedFlow(), torch.tensor([0.25, 0.5]), 0.125
    later = process.corrupt(X0, NOISE, t_B + step)
    velocity = (later - process.corrupt(X0, NOISE, t_B)) / step
    torch.testing.assert_close(process.target(X0, NOISE, t_B), velocity)
    torch.testing.assert_close(process.target(X0, NOISE, t_B)[0], torch.tensor([[-2.0, -2.0]]))


def test_times_are_uniform_without_a_shift() -> None:
    uniform = torch.tensor([0.0, 0.3, 0.999])
    assert torch.equal(RectifiedFlow().sample_times(uniform), uniform)


def test_times_of_a_part_are_those_of_the_shift_in_it() -> None:
    uniform = torch.tensor([0.0, 0.5, 1.0])
    times = RectifiedFlow(start=0.5, end=0.75).sample_times(uniform)
    assert times.tolist() == pytest.approx([0.5, 0.625, 0.75]) and times[2] < 0.75
    # A shift of 3 leads from 1/4 to 0.5, from 1/2 to 0.75, and from 3/8 to 9/14.
    times = RectifiedFlow(shift=3.0, start=0.5, end=0.75).sample_times(uniform)
    assert times.tolist() == pytest.approx([0.5, 9 / 14, 0.75])


def test_a_shift_moves_times_towards_the_noise() -> None:
    times = RectifiedFlow(shift=3.0).sample_times(torch.tensor([0.0, 0.5, 1.0]))
    assert times.tolist() == pytest.approx([0.0, 0.75, 1.0])
