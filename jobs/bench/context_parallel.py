"""Several processes per video against one: differences, and memory of each process.

    python -m jobs.bench.context_parallel
    python -m jobs.bench.context_parallel --degrees 2 --recipe my_recipe sampling.num_frames=33

Each way samples the same candidates, and goes forward and backward on them as a pair, once in one
process and once shared. `samples` is how far the latents are from those of one process, relative to
their norm, `gradient` the same of all trained weights after the sum over processes. Memory is the
peak of torch's allocations in the first process, above what was held before. Processes have a GPU
each where the machine has as many, else they share the CPU. The weights are those of the
checkpoint, but for a little noise on adapters, which would otherwise do nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import command
from jobs.bench.measuring import add_json, write_json

if TYPE_CHECKING:
    import argparse

    from torch import Tensor

    from videorl.config import Recipe
    from videorl.embedding import Embedding

MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """What one process of a group found."""

    latents_BCTHW: Tensor
    loss: float
    gradient: dict[str, Tensor]
    sample_bytes: int
    step_bytes: int


@dataclass(frozen=True)
class Row:
    """A group of processes compared with one process."""

    trained: str
    """`LoRA` or `all`."""
    processes: int
    samples: float
    loss: float
    """Difference."""
    gradient: float
    sample_bytes: int
    step_bytes: int
    one_sample_bytes: int
    """Of one process that shares nothing, as the next."""
    one_step_bytes: int


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.context_parallel", __doc__)
    command.add_overrides(parser, "recipe settings to change")
    command.add_option(parser, "--recipe", "moving_shapes", "name or path of a recipe")
    command.add_option(parser, "--degrees", [2, 4], "numbers of processes that share a video")
    add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every number of processes, with an adapter and with all weights trained."""
    options = _parser().parse_intermixed_args(argv)

    from videorl.recipes.reading import load_recipe

    rows = compare(load_recipe(options.recipe, options.overrides), options.degrees)
    titles = ("trained", "processes", "samples", "gradient", "sample MiB", "of one", "step MiB")
    print(" ".join(f"{title:>10}" for title in (*titles, "of one")))
    for row in rows:
        print(
            f"{row.trained:>10} {row.processes:>10} {row.samples:>10.1e} {row.gradient:>10.1e} "
            f"{row.sample_bytes / MIB:>10.2f} {row.one_sample_bytes / MIB:>10.2f} "
            f"{row.step_bytes / MIB:>10.2f} {row.one_step_bytes / MIB:>10.2f}"
        )
    write_json(options.json, [asdict(row) for row in rows])
    return 0


def compare(recipe: Recipe, degrees: Sequence[int]) -> list[Row]:
    """Compare groups of so many processes with one process, with an adapter and without.

    Processes are forked, so that they need not import everything again: no model may have been run
    here before.

    Raises:
        ConfigError: A number of processes does not divide heads and tokens.
    """
    import torch
    from torch.multiprocessing.spawn import start_processes

    from videorl.planning.models import read_configs
    from videorl.policies.parallel import check_sharing

    for module in ("jobs.bench.peak_memory", "videorl.learning.build", "videorl.policies.loading"):
        import_module(module)
    configs = read_configs(recipe.policy.path).parts
    for degree in degrees:
        check_sharing(recipe.policy.family, configs, recipe.sampling, degree, "--degrees")
    rows: list[Row] = []
    for rank in {recipe.policy.lora.rank, 0}:
        trained = replace(recipe.policy, lora=replace(recipe.policy.lora, rank=rank))
        for degree in degrees:
            with tempfile.TemporaryDirectory() as folder:
                arguments = (degree, Path(folder), replace(recipe, policy=trained))
                start_processes(_process, arguments, nprocs=degree, start_method="fork")
                found = torch.load(Path(folder) / "found.pt")
            rows.append(Row("LoRA" if rank else "all", degree, **found))
    return rows


def _process(rank: int, degree: int, folder: Path, recipe: Recipe) -> None:
    """Measure alone and then with the others; the first process writes what it found."""
    import torch
    from torch import distributed

    from videorl.policies.parallel import share_videos

    on_gpu = torch.cuda.device_count() >= degree
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    rendezvous = f"file://{folder}/rendezvous"
    backend = "nccl" if on_gpu else "gloo"
    distributed.init_process_group(backend, rendezvous, rank=rank, world_size=degree)
    policy = noisy_policy(recipe, device)
    alone = measure(recipe, policy, device) if rank == 0 else None
    distributed.barrier()
    share_videos(policy, recipe.policy, degree)
    shared = measure(recipe, policy, device)
    for gradient in shared.gradient.values():
        distributed.all_reduce(gradient)
    if alone is not None:
        torch.save(differences(alone, shared), folder / "found.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def noisy_policy(recipe: Recipe, device: Any) -> Any:
    """Return the trainable policy of a recipe, with an adapter that does something."""
    import torch

    from videorl.policies import load_policy

    policy = load_policy(
        recipe.policy,
        recipe.sampling,
        parts=frozenset({"transformer"}),
        device=device,
        trainable=True,
    )
    noise = torch.Generator().manual_seed(1)
    if recipe.policy.lora.rank:
        with torch.no_grad():
            for weight in policy.live("policy"):
                weight += 0.05 * torch.randn(weight.shape, generator=noise).to(device)
    return policy


def measure(recipe: Recipe, policy: Any, device: Any, *, memory: bool = True) -> Measured:
    """Sample two candidates, and go forward and backward on them; without `memory`, only that."""
    import torch

    from jobs.bench.peak_memory import peak_bytes
    from videorl.learning.build import build_method
    from videorl.policies import load_family

    generator = torch.Generator().manual_seed(0)
    zeros = load_family(recipe.policy.family).example_text(
        policy.trainable_module(), recipe.sampling.max_sequence_length
    )
    embeds, negative = (
        zeros.map(lambda tensor: torch.randn(tensor.shape, generator=generator)) for _ in range(2)
    )
    sampled: list[Tensor] = []

    def peak_of(work: Callable[[], None]) -> int:
        return peak_bytes(work, device) if memory else work() or 0

    sample_bytes = peak_of(lambda: sampled.append(policy.sample(embeds, negative, [0, 1])))
    method = build_method(recipe, policy)
    (update,), _ = method.items(0, [_pair(embeds, sampled[0].cpu())])
    losses: list[float] = []

    def learn() -> None:
        for run in method.passes(update.items):
            loss, _ = run()
            losses.append(float(loss.detach()))
            loss.backward()

    step_bytes = peak_of(learn)
    module = policy.trainable_module()
    trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    gradient: dict[str, Tensor] = {}
    for name, weight in trained.items():
        gradient[name] = torch.zeros_like(weight) if weight.grad is None else weight.grad
        weight.grad = None
    return Measured(sampled[0].cpu(), sum(losses), gradient, sample_bytes, step_bytes)


def _pair(embeds: Embedding, latents_BCTHW: Tensor) -> Any:
    from videorl.types import (
        Candidate,
        PreferencePair,
        Prompt,
        Score,
        ScoredCandidate,
        WeightVersion,
    )

    prompt, version = Prompt(0, "measured"), WeightVersion(0, "measured")
    chosen, rejected = (
        ScoredCandidate(Candidate(0, prompt, n, n, version, latents, None), Score({}, 0.0))
        for n, latents in enumerate(latents_BCTHW)
    )
    return PreferencePair(prompt, embeds, chosen, rejected, margin=1.0)


def differences(alone: Measured, shared: Measured) -> dict[str, Any]:
    """Return the numbers of a `Row`; `shared` has the gradient of its whole group."""
    import torch

    def relative(found: Tensor, wanted: Tensor) -> float:
        return float((found - wanted).norm() / wanted.norm())

    one, all_of_it = (
        torch.cat([each.gradient[name].flatten() for name in alone.gradient])
        for each in (alone, shared)
    )
    return {
        "samples": relative(shared.latents_BCTHW, alone.latents_BCTHW),
        "loss": abs(shared.loss - alone.loss),
        "gradient": relative(all_of_it, one),
        "sample_bytes": shared.sample_bytes,
        "step_bytes": shared.step_bytes,
        "one_sample_bytes": alone.sample_bytes,
        "one_step_bytes": alone.step_bytes,
    }


if __name__ == "__main__":
    raise SystemExit(command.run(main))
