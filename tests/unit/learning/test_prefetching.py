"""The next micro-batch is loaded while the last one computes, and changes no number."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.learners import tiny_learner, tiny_pairs, tiny_recipe
from tests.tiny_policy import TinyPolicy
from videorl.embedding import Embedding
from videorl.learning.from_candidates import FromCandidates
from videorl.learning.gradient_step import with_last
from videorl.learning.items import Batch, micro_batches
from videorl.learning.prefetching import Ahead, Loader, load_when_needed
from videorl.objectives.dpo import FlowDPO
from videorl.protocols import Role


@pytest.mark.parametrize("videos", [1, 2, 4])
def test_weights_are_the_same_bit_for_bit(videos: int, tmp_path: Path) -> None:
    found: list[str] = []
    for prefetch in (True, False):
        recipe = tiny_recipe(micro_batch_size=videos)
        recipe.learner.prefetch = prefetch
        learner, _ = tiny_learner(recipe, tmp_path / str(prefetch))
        learner.start()
        found.append([learner.step(step, tiny_pairs(step)) for step in range(3)][-1].version.digest)
    assert found[0] == found[1]


class Computing(TinyPolicy):
    """Waits in its forward until a thread has loaded what comes next, and fails if none does."""

    def __init__(self, num_batches: int) -> None:
        super().__init__()
        self.loaded = threading.Semaphore(0)
        self.to_come = num_batches - 1

    def predict(
        self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Embedding], role: Role
    ) -> Tensor:
        if role == "policy" and self.to_come:
            self.to_come -= 1
            assert self.loaded.acquire(timeout=180), "the next batch is not loaded meanwhile"
        return super().predict(x_t_BCTHW, t_B, prompt_embeds, role)


def test_the_next_is_loaded_while_the_last_computes() -> None:
    (update,), _ = FromCandidates(TinyPolicy(), FlowDPO(), 0).items(0, tiny_pairs(0))
    batches = micro_batches(update.items, 2)
    policy, ahead = Computing(len(batches)), Ahead()
    order: list[int] = []

    def loader(make: Callable[[torch.device], Batch], device: torch.device) -> Callable[[], Batch]:
        number = len(order)
        order.append(number)

        def made(device: torch.device) -> Batch:
            batch = make(device)
            if number:
                policy.loaded.release()
            return batch

        return ahead(made, device)

    method = FromCandidates(policy, FlowDPO(), 0, loader=loader)
    runs = (run for batch in batches for run in method.passes(batch))
    for run, _ in with_last(runs):
        run()[0].backward()
    assert order == list(range(len(batches)))


def test_an_error_while_loading_is_raised_by_the_pass_that_needs_it() -> None:
    def fails(device: torch.device) -> None:
        raise ValueError("no such latents")

    loaders: list[Loader[None]] = [Ahead(), load_when_needed]
    for loader in loaders:
        load = loader(fails, torch.device("cpu"))
        with pytest.raises(ValueError, match="no such latents"):
            load()
