"""The recipe: dataclasses are the schema and the defaults.

`videorl.recipes.reading` fills them from YAML and `key=value` overrides,
`videorl.recipes.validation` checks what types cannot. A recipe file states only what differs from
the defaults. `0` disables an `interval`. Sections about models are in `videorl.settings.model`,
those about workers in `videorl.settings.workers` and `videorl.settings.rewards`, those about
trackers in `videorl.settings.tracking`, that about held-out prompts in `.evaluation`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from videorl.errors import ConfigError
from videorl.objectives import OBJECTIVES
from videorl.objectives.agreeing import Agreeing
from videorl.objectives.dpo import FlowDPO
from videorl.objectives.objective import CandidateObjective, Examples, Objective, RewardObjective
from videorl.selection import RULES, BestVsWorst, Selection
from videorl.settings.choice import Choice
from videorl.settings.evaluation import EvaluationConfig
from videorl.settings.guard import GuardConfig
from videorl.settings.model import PolicyConfig, SamplingConfig
from videorl.settings.rewards import RewardConfig
from videorl.settings.tracking import FixedPromptsConfig, MetricsConfig
from videorl.settings.workers import ClusterConfig, EncoderConfig, GeneratorsConfig, LearnerConfig

SELECTION = Choice("rule", RULES, "best_vs_worst", (Selection,))
OBJECTIVE = Choice(
    "name", OBJECTIVES, "flow_dpo", (CandidateObjective, RewardObjective), ("learns_from",)
)


@dataclass
class PromptsConfig:
    """Where prompts come from and how many are used per round."""

    source: str = MISSING
    """`moving_shapes`; a file: `.txt` with one prompt per line, `.csv`, `.json`, `.jsonl` or
    `.parquet`; or `module:function`, which returns those of a split, `train` or `held_out`."""
    column: str = "prompt"
    """Where a table has its prompts. Its columns `id`, `tags` and `weight` (how often a prompt is
    drawn, relative to the others) are read too, where it has them."""
    per_round: int = 8
    """Prompts that every optimizer step learns from."""
    candidates_per_prompt: int = 4
    """K in OnlineVPO; at least 2."""


@dataclass
class OfflineConfig:
    """Learning from stored pairs: nothing is sampled or scored."""

    archive: str = ""
    """The archive folder of a run with `archive.latents=true`, or Parquet files with the columns
    of `videorl.data.preferences` (latents) or `videorl.data.preference_videos` (video files);
    empty = online. A step takes `prompts.per_round` pairs."""


@dataclass
class OptimizerConfig:
    """AdamW."""

    learning_rate: float = 1e-5
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    warmup_steps: int = 0
    """Steps over which the rate rises linearly to `learning_rate`."""
    schedule: str = ""
    """What follows the warm-up: `constant`; or a fall from the peak to zero at `decay_steps`,
    `linear` or `cosine`. Empty = linear where there are `decay_steps`, constant elsewhere."""
    decay_steps: int = 0
    """Step at which the rate has fallen to zero, counted from the first; 0 = it does not fall."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    fused: bool | str = "auto"
    """Update a whole tensor in one kernel: faster, and other rounding. auto = on GPUs."""


@dataclass
class ReferenceConfig:
    """The curriculum: the reference becomes the policy every `interval` steps (OnlineVPO: 200)."""

    interval: int = 200


@dataclass
class RolloutsConfig:
    """How far sampling may run ahead of learning."""

    max_staleness: int = 0
    """Optimizer steps between the weights that sampled a candidate and those that learn from it."""
    canary_interval: int = 0
    """Every so many versions, generators must sample what the learner samples; see
    `videorl.sampling.canary`."""
    canary_tolerance: float = 0.02
    """How far latents of a canary may differ, relative to their norm; 0 = bit for bit."""


@dataclass
class CheckpointConfig:
    """When to save, and how many checkpoints to keep."""

    interval: int = 10
    """Steps; one is also written when a run ends or is stopped. With 0 nothing is kept to replace a
    learner that is lost, which then ends a run on a cluster."""
    keep: int = 2
    """The newest so many; with `evaluation.interval` the best by the held-out total stays too, and
    the last before an alarm of the guard."""
    keep_every: int = 0
    """Checkpoints of steps that are multiples of it stay as well."""
    location: str = ""
    """A folder or URI (`s3://bucket/run`, `gs://bucket/run`) that every learner rank can reach;
    empty = in the run folder."""
    timeout_s: float = 1800.0
    """A checkpoint that takes longer counts as not written: the one before stands."""
    sharded: bool | str = "auto"
    """Each rank writes the slices of weights and optimizer state that ZeRO gives it, instead of
    rank 0 everything. `auto`: where more than 500 million weights are trained. Either kind is
    restored on any number of ranks."""
    patience_s: float = 1200.0
    """Where `run_dir` or `location` is a URI: how long the run waits for a store that does not
    answer, or is full, before it ends. What it wrote is kept on its machine then."""


@dataclass
class ArchiveConfig:
    """What of every candidate is kept on disk."""

    videos: str = "pairs"
    """`all`, `pairs` (only those that were learned from) or `none`; as mp4."""
    latents: bool = False
    """Keep the latents of archived candidates too, so that pairs can be trained on again."""
    every: int = 1
    """Keep videos and latents of every so many steps only; rows are kept of all."""
    keep_gb: float = 0.0
    """GB that videos and latents may take; beyond it those of the oldest steps are deleted, and
    rows stay. 0 = no limit."""
    timeout_s: float = 1800.0
    """A writer that takes longer for a step is replaced; if the next does too, the run ends."""

    def keeps(self, step: int, *, is_learned: bool) -> KeptMedia:
        """Return what is kept of a candidate of a step, by whether it is learned from."""
        is_kept = step % self.every == 0 and (self.videos == "all" or is_learned)
        return KeptMedia(is_kept and self.videos != "none", is_kept and self.latents)


@dataclass(frozen=True)
class KeptMedia:
    """What the archive keeps of a candidate."""

    video: bool
    latents: bool


@dataclass
class Recipe:
    """A whole run."""

    command: ClassVar[str] = "train"
    """Of `videorl`, that reads such recipes."""
    name: str = MISSING
    seed: int = 0
    """Every random number of training derives from it."""
    num_steps: int = 1000
    """Rounds that the whole run learns from, resumed ones included."""
    run_dir: str = "runs/${name}"
    """On several nodes an absolute path on storage that all of them share, or a URI such as
    `s3://bucket/run`, with a working copy on the driver's machine."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    rewards: list[RewardConfig] = field(default_factory=list[RewardConfig])
    selection: Selection = field(default_factory=BestVsWorst, metadata={"choice": SELECTION})
    """Who is chosen and who is rejected; the other settings are those of the rule."""
    objective: Objective = field(default_factory=FlowDPO, metadata={"choice": OBJECTIVE})
    """What is minimised; the other settings are those of the objective."""
    offline: OfflineConfig = field(default_factory=OfflineConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    rollouts: RolloutsConfig = field(default_factory=RolloutsConfig)
    generators: GeneratorsConfig = field(default_factory=GeneratorsConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    fixed_prompts: FixedPromptsConfig = field(default_factory=FixedPromptsConfig)
    rehearsal: str = "auto"
    """Whether everything is done once at full size before the run begins, so that what does not fit
    ends it within minutes: `always`, `never`; auto = where the transformer has more than 500
    million parameters. It changes no number of the run."""

    @property
    def learns_online(self) -> bool:
        """Whether generators sample and reward workers score what is learned from."""
        return self.objective.learns_from != "prompts" and not self.offline.archive

    @property
    def has_pools(self) -> bool:
        """Whether generators and reward workers are there while the run learns.

        Those of a learner that is alone sample and score held-out prompts in between.
        """
        return self.learns_online or bool(self.evaluation.interval_in_use)

    @property
    def shares_videos(self) -> bool:
        """Whether several processes share a video, of the learner or of generator workers."""
        return max(self.learner.context_parallel, self.generators.context_parallel) > 1

    @property
    def versions_sampled(self) -> int:
        """Published versions that generators may be asked for at the same time."""
        is_sampled_beside = self.fixed_prompts.interval or self.evaluation.interval_in_use
        return self.rollouts.max_staleness + 1 + (1 if is_sampled_beside else 0)

    @property
    def drift_interval(self) -> int:
        """Steps between measurements of the drift from the base; 0 = none."""
        asked = self.metrics.drift_interval
        return self.evaluation.interval_in_use if asked == "auto" else int(asked)

    @property
    def video_pixels(self) -> int:
        """Frames times height times width of a video."""
        return self.sampling.num_frames * self.sampling.height * self.sampling.width

    @property
    def prompts_in_flight(self) -> int:
        """Most prompts of a round, and of those sampled ahead, that wait for generators."""
        return self.prompts.per_round * (self.rollouts.max_staleness + 1)

    def candidates_per_request(self, workers: int | None = None) -> int:
        """Return the most candidates that one generator gets at once; 0 = all of a prompt.

        Args:
            workers: Generators (>= 1) for which `auto` chooses; None = as many as there may be.
        """
        if (asked := self.generators.candidates_per_request) != "auto":
            return int(asked)
        count = self.prompts.candidates_per_prompt
        parts = math.ceil((workers or self.generators.max_workers) / self.prompts_in_flight)
        return max(1, count // parts) if parts > 1 else 0

    @property
    def videos_denoised_at_once(self) -> int:
        """The most videos that a generator denoises at the same time, evaluation included."""
        largest = self.prompts.candidates_per_prompt
        if self.evaluation.source:
            largest = max(largest, self.evaluation.best_of, self.evaluation.samples)
        sizes = (self.sampling.batch_size, self.candidates_per_request())
        return min([largest, *(size for size in sizes if size)])

    def parts_per_prompt(self, workers: int | None = None) -> int:
        """Return how many requests the candidates of a prompt are; `workers` as above."""
        count = self.prompts.candidates_per_prompt
        return math.ceil(count / (self.candidates_per_request(workers) or count))

    @property
    def reference_interval(self) -> int:
        """Steps between swaps of the reference; 0 also where nothing is compared with it."""
        objective = self.objective
        if not isinstance(objective, CandidateObjective):
            return 0
        is_used = "reference" in objective.frozen_roles(self.video_pixels)
        return self.reference.interval if is_used else 0

    def weight_of(self, name: str) -> float:
        """Return what a dimension, as combined scores name it, counts in the total.

        1 stands for "as the reward model has it" where the recipe says nothing.
        """
        for reward in self.rewards:
            prefix = f"{reward.key}." if len(self.rewards) > 1 else ""
            if name.startswith(prefix):
                weights = reward.dimension_weights
                own = weights.get(name.removeprefix(prefix), 0.0) if weights else 1.0
                return reward.weight * own
        return 0.0

    @property
    def pair_rule(self) -> Selection:
        """The rule of `selection`, for the weights of these rewards."""
        rule = self.selection.weighing(self.weight_of)
        return Agreeing(rule.rule, rule.min_margin, inner=rule) if rule.agree else rule

    def example_source(self) -> Examples:
        """Return what makes the training examples of a scored group.

        Raises:
            ConfigError: The objective learns from prompts alone.
        """
        if not isinstance(self.objective, CandidateObjective):
            raise ConfigError(
                f"objective.name={self.objective.name} learns from prompts, not from candidates"
            )
        return self.objective.examples(self.pair_rule)
