"""Sections of a recipe that say how many workers there are, and what each of them takes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass
class GeneratorsConfig:
    """The elastic generator pool."""

    min_workers: int = 1
    """Kept even when idle; the run starts only if they fit."""
    max_workers: int = 1
    """Started while requests queue, if there is room."""
    candidates_per_request: int | str = "auto"
    """Most candidates of a prompt that one worker gets at once: fewer = a prompt keeps several
    workers busy. Same seeds, same candidates, up to the rounding of other batches. 0 = all of a
    prompt; auto = all, unless `max_workers` is more than the prompts in flight: then few enough for
    every worker to get some."""
    context_parallel: int = 1
    """Processes of each worker that share every video, all on one node; each has `num_cpus` and
    `num_gpus`. Divides the heads and tokens of the model (docs/planning.md)."""
    num_cpus: float = 1.0
    num_gpus: float | None = None
    resources: dict[str, float] = field(default_factory=dict[str, float])
    """Custom Ray resources that each worker takes beside CPUs and GPUs."""
    max_retries: int = 3
    """Times that one request is given to another worker before its candidates are dropped."""
    worker_timeout_s: float = 1800.0
    """A worker that holds one request for longer is replaced."""
    idle_release_s: float = 300.0
    """A worker above the minimum that idles for longer is released."""
    start_timeout_s: float = 1800.0
    """A worker that has a place and has not loaded its model for longer is replaced."""
    patience_s: float = 1200.0
    """Where workers have worked and no more can be started, the run ends after so long."""


@dataclass
class EncoderConfig:
    """The text encoder: prompts are encoded once and their embeddings shared."""

    num_workers: int = 1
    """Kept even when idle."""
    max_workers: int = 0
    """Started while prompts queue; 0 = `num_workers`."""
    num_cpus: float = 1.0
    num_gpus: float | None = None
    resources: dict[str, float] = field(default_factory=dict[str, float])
    """Custom Ray resources that each worker takes beside CPUs and GPUs."""
    max_retries: int = 3
    """Times that a prompt is given to another worker before its candidates are dropped."""
    worker_timeout_s: float = 600.0
    """A worker that holds one prompt for longer is replaced."""
    idle_release_s: float = 300.0
    """A worker above `num_workers` that idles for longer is released."""
    start_timeout_s: float = 1800.0
    """A worker that has a place and has not loaded its model for longer is replaced."""
    patience_s: float = 1200.0
    """Where workers have worked and no more can be started, the run ends after so long."""

    @property
    def most_workers(self) -> int:
        """Workers that it may ever have."""
        return self.max_workers or self.num_workers


@dataclass
class ClusterConfig:
    """What cannot be seen from inside a Ray cluster."""

    can_grow: bool = False
    """An autoscaler adds nodes on demand: start even if the nodes of now are too few."""
    keep_latents_on: str = ""
    """A custom Ray resource: latents that will be learned from are copied to the nodes that have
    it, in turn, which should be nodes that stay; empty = to the driver's node."""


@dataclass
class LearnerConfig:
    """Ray Train workers running DeepSpeed."""

    num_workers: int = 1
    max_workers: int = 0
    """Ranks that are used as soon as the cluster can hold them; 0 = always `num_workers`. Ray Train
    counts whole nodes for this: give learners nodes of their own by `resources`."""
    resources: dict[str, float] = field(default_factory=dict[str, float])
    """Custom Ray resources that each rank takes beside CPUs and GPUs."""
    zero_stage: int = 1
    """DeepSpeed ZeRO: what ranks share out. 0 = nothing, 1 = optimizer, 2 = gradients too,
    3 = weights too."""
    context_parallel: int = 1
    """Consecutive ranks that share every video: each holds its share of the activations, and all
    weights. Divides `num_workers`, and the heads and tokens of the model (docs/planning.md)."""
    num_cpus: float = 1.0
    num_gpus: float | None = None
    micro_batch_size: int | str = "auto"
    """Videos per forward on each worker, of reward training examples; smaller = less memory, same
    result. 1 takes the videos of a pair one after the other, for one more forward of the policy.
    auto = as many as `videorl plan` says fit the learner's GPU; 16 on a CPU and for rewards."""
    updates_per_round: int = 1
    """Optimizer updates that a step makes of its round, each from an equal part of the examples;
    weights are published after the last."""
    loss_over: str = "found"
    """What the loss of an update is a mean over: `found` = the examples that there are; `planned` =
    as many as if no prompt had failed to give any, so that each example counts alike in all
    steps."""
    prefetch: bool = True
    """Bring the next micro-batch to the device while the last one computes; same result. Of
    policies that learn from candidates."""
    max_failures: int = 5
    """Failures of the worker group without progress in between before the run fails; -1 = never."""
    start_timeout_s: float = 1800.0
    """Ranks that have a place and have not loaded model and checkpoint for longer are replaced."""
    worker_timeout_s: float = 1800.0
    """Ranks that work on a command for longer are replaced; a step has as much more for every 30
    videos of a rank, and for every 180 solver steps where the learner itself samples them.
    Checkpoints have `checkpoint.timeout_s`."""

    @property
    def videos_at_once(self) -> int:
        """`micro_batch_size`; 16 where no GPU has decided what `auto` is."""
        return 16 if self.micro_batch_size == "auto" else int(self.micro_batch_size)

    def taking_nothing(self) -> LearnerConfig:
        """Return the settings of a learner that is not started, so that nothing is kept for it."""
        return replace(self, num_cpus=0.0, num_gpus=0.0, resources={})
