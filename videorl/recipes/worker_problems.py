"""What is wrong with the sections of a recipe that say how many workers there are."""

from __future__ import annotations

from collections.abc import Iterator

from videorl.settings.bounds import Problem, above, at_least, auto_or, one_of
from videorl.settings.rewards import RewardConfig
from videorl.settings.workers import EncoderConfig, GeneratorsConfig, LearnerConfig

LOSS_OVER = ("found", "planned")


def generator_problems(generators: GeneratorsConfig) -> Iterator[Problem]:
    """Yield what is wrong with a `generators` section."""
    yield at_least("generators.min_workers", generators.min_workers, 1)
    if generators.max_workers < generators.min_workers:
        yield (
            f"generators.max_workers must be >= generators.min_workers ({generators.min_workers}), "
            f"got {generators.max_workers}"
        )
    yield auto_or("generators.candidates_per_request", generators.candidates_per_request, 0)
    yield from _resources("generators", generators)
    yield from patience_problems("generators", generators)


def worker_problems(key: str, pool: RewardConfig | EncoderConfig) -> Iterator[Problem]:
    """Yield what is wrong with the numbers and resources of the workers of a section."""
    yield at_least(f"{key}.num_workers", pool.num_workers, 1)
    if pool.max_workers and pool.max_workers < pool.num_workers:
        yield (
            f"{key}.max_workers must be 0 or >= {key}.num_workers ({pool.num_workers}), "
            f"got {pool.max_workers}"
        )
    yield from _resources(key, pool)


def patience_problems(
    key: str, pool: GeneratorsConfig | RewardConfig | EncoderConfig
) -> Iterator[Problem]:
    """Yield what is wrong with the patience of a pool of workers."""
    yield at_least(f"{key}.max_retries", pool.max_retries, 0)
    for name in ("worker_timeout_s", "idle_release_s", "start_timeout_s", "patience_s"):
        yield above(f"{key}.{name}", getattr(pool, name), 0)


def learner_problems(learner: LearnerConfig) -> Iterator[Problem]:
    """Yield what is wrong with a `learner` section."""
    yield at_least("learner.num_workers", learner.num_workers, 1)
    if learner.max_workers and learner.max_workers < learner.num_workers:
        yield (
            f"learner.max_workers must be 0 or >= learner.num_workers ({learner.num_workers}), "
            f"got {learner.max_workers}"
        )
    yield one_of("learner.zero_stage", learner.zero_stage, (0, 1, 2, 3))
    yield from _resources("learner", learner)
    most = max(learner.num_workers, learner.max_workers)
    if most > 1 and learner.num_gpus is not None and learner.num_gpus != int(learner.num_gpus):
        yield (
            f"learner.num_gpus must be whole GPUs for several ranks ({most}), as nccl takes each "
            f"GPU once, got {learner.num_gpus:g}"
        )
    yield auto_or("learner.micro_batch_size", learner.micro_batch_size, 1)
    yield at_least("learner.updates_per_round", learner.updates_per_round, 1)
    yield one_of("learner.loss_over", learner.loss_over, LOSS_OVER)
    yield at_least("learner.max_failures", learner.max_failures, -1)
    for name in ("start_timeout_s", "worker_timeout_s"):
        yield above(f"learner.{name}", getattr(learner, name), 0)


def without_rounds(learner: LearnerConfig) -> Iterator[Problem]:
    """Yield settings of a policy's learner that mean nothing where examples have labels."""
    for name, only in (("updates_per_round", 1), ("loss_over", "found")):
        if (got := getattr(learner, name)) != only:
            yield f"learner.{name} must be {only}: labelled examples have no rounds, got {got}"


def _resources(
    key: str, needed: GeneratorsConfig | RewardConfig | EncoderConfig | LearnerConfig
) -> Iterator[Problem]:
    num_gpus = needed.num_gpus
    yield at_least(f"{key}.num_cpus", needed.num_cpus, 0)
    if num_gpus is not None:
        yield at_least(f"{key}.num_gpus", num_gpus, 0)
        if num_gpus > 1 and num_gpus != int(num_gpus):
            yield f"{key}.num_gpus must be a whole number, or a share of one GPU, got {num_gpus:g}"
    for name, amount in needed.resources.items():
        yield above(f"{key}.resources.{name}", amount, 0)
