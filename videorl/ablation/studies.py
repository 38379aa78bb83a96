"""The studies: what is compared, what the papers say, and which sign would agree with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Setting = str | int | float


@dataclass(frozen=True)
class Arm:
    """A way to train: a recipe with changes."""

    overrides: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    recipe: str = "moving_shapes_dpo"
    pairs: Literal["online", "stored"] = "online"
    """`stored` = sampled from the base before training, as many as the run would sample."""
    evaluations: int = 1
    """How often the held-out prompts are sampled: evenly spaced, the last time at the end."""
    length: int = 1
    """Multiple of the steps that other arms take."""


@dataclass(frozen=True)
class Comparison:
    """`better` minus `worse`, seed by seed, in a measure."""

    better: str
    worse: str
    measure: str = "total"
    sign: Literal[1, -1, 0] = 1
    """Sign of the difference as published; 0 = nobody published it."""


@dataclass(frozen=True)
class Study:
    """A claim: the arms that test it, by label, and the comparisons that judge it."""

    title: str
    claim: str
    arms: Mapping[str, Arm]
    comparisons: tuple[Comparison, ...]
    note: str = ""
    """What differs from the paper's own experiment."""


DEFAULT = Arm()
LEARNED = "moving_shapes_learned_reward"


LOW_RATE: dict[str, Setting] = {"optimizer.learning_rate": 3e-4}


def _with(key: str, value: Setting) -> Arm:
    return Arm({key: value})


def _dimension(name: str) -> Arm:
    return Arm({"selection.rule": "single_dimension", "selection.dimension": name})


STUDIES: dict[str, Study] = {
    "online": Study(
        "Online against offline",
        "OnlineVPO: online preferences beat offline ones. Dynamic degree / subject "
        "consistency / quality 43.0 / 97.58 / 55.37 online, 28.0 / 97.07 / 53.28 offline.",
        {
            "online": DEFAULT,
            "offline": Arm(pairs="stored"),
            "online, 3 × as long": Arm(evaluations=3, length=3),
            "offline, 3 × as long": Arm(pairs="stored", evaluations=3, length=3),
        },
        tuple(
            Comparison(f"online{length}", f"offline{length}", measure)
            for length in ("", ", 3 × as long")
            for measure in ("total", "visual_quality", "dynamic_degree")
        ),
        "The offline arms learn from pairs that the base sampled for the same prompts with the "
        "same seeds: as many, for as many steps, with the same curriculum of the reference. In so "
        "few steps the policy hardly leaves the base, so both are also run three times as long.",
    ),
    "reference": Study(
        "How often the reference becomes the policy",
        "OnlineVPO: every N = 200 steps is best of 100 / 200 / 400 / 600; subject consistency "
        "97.02 / 97.58 / 96.64 / 96.11, quality 53.74 / 55.37 / 51.26 / 51.88. A reference that "
        "never moves is not in its table.",
        {
            "every 2 steps": _with("reference.interval", 2),
            "every 5": _with("reference.interval", 5),
            "every 10": DEFAULT,
            "every 15": _with("reference.interval", 15),
            "never": _with("reference.interval", 0),
        },
        (
            Comparison("every 10", "every 2 steps"),
            Comparison("every 10", "every 5"),
            Comparison("every 10", "every 15"),
            Comparison("every 10", "never"),
        ),
        "The paper's shape is a best interval in between. Which of ours that should be does not "
        "follow from its numbers; the shipped recipe's 10 stands for it.",
    ),
    "candidates": Study(
        "Candidates per prompt",
        "OnlineVPO: subject consistency 96.09 / 97.09 / 97.58 / 97.21 and quality 49.16 / 54.33 / "
        "55.37 / 54.75 with K = 2 / 4 / 6 / 8: more help, up to 6.",
        {
            "K = 2": _with("prompts.candidates_per_prompt", 2),
            "K = 4": DEFAULT,
            "K = 6": _with("prompts.candidates_per_prompt", 6),
            "K = 8": _with("prompts.candidates_per_prompt", 8),
        },
        (
            Comparison("K = 4", "K = 2"),
            Comparison("K = 6", "K = 4"),
            Comparison("K = 8", "K = 6", sign=-1),
        ),
        "Steps and prompts are the same for all, so a larger K samples more videos.",
    ),
    "dimension": Study(
        "One dimension of the reward against all",
        "OnlineVPO: ranking by temporal consistency alone gives subject consistency 97.58 and "
        "quality 55.37, by the mean of all dimensions 95.37 and 51.33; dynamic degree falls from "
        "55.0 to 43.0.",
        {
            "all": DEFAULT,
            "visual quality": _dimension("visual_quality"),
            "motion quality": _dimension("motion_quality"),
            "text alignment": _dimension("text_alignment"),
        },
        (
            Comparison("motion quality", "all", "motion_quality"),
            Comparison("motion quality", "all", "visual_quality"),
            Comparison("motion quality", "all", "dynamic_degree", sign=-1),
            Comparison("visual quality", "all", "visual_quality", sign=0),
            Comparison("text alignment", "all", "text_alignment", sign=0),
            Comparison("motion quality", "all", sign=0),
        ),
        "Motion quality (a smooth path, but a moving one) stands for temporal consistency, the "
        "total of the three dimensions for their mean. No measure here is VBench's.",
    ),
    "objective": Study(
        "Objectives: Flow-DPO with two schedules of β, Flow-RWR, SFT",
        "VideoReward (win rates against the pretrained model in visual quality / motion quality / "
        "text alignment): constant β 93.42 / 69.08 / 75.43, β(1 − t)² 87.78 / 82.36 / 51.02, RWR "
        "51.55 / 63.90 / 53.43, SFT 51.28 / 65.21 / 52.84.",
        {
            "constant β": DEFAULT,
            "β(1 − t)²": _with("objective.beta_schedule", "squared_signal"),
            "3 β(1 − t)²": Arm(
                {"objective.beta_schedule": "squared_signal", "objective.beta": 450}
            ),
            "Flow-RWR": _with("objective.name", "flow_rwr"),
            "SFT": _with("objective.name", "sft"),
            "β(1 − t)², low rate": Arm({"objective.beta_schedule": "squared_signal", **LOW_RATE}),
            "Flow-RWR, low rate": Arm({"objective.name": "flow_rwr", **LOW_RATE}),
            "SFT, low rate": Arm({"objective.name": "sft", **LOW_RATE}),
        },
        (
            Comparison("constant β", "β(1 − t)²", "visual_quality"),
            Comparison("constant β", "β(1 − t)²", "motion_quality", sign=-1),
            Comparison("constant β", "β(1 − t)²", "text_alignment"),
            Comparison("constant β", "3 β(1 − t)²", "visual_quality"),
            Comparison("constant β", "3 β(1 − t)²", "motion_quality", sign=-1),
            Comparison("constant β", "3 β(1 − t)²", "text_alignment"),
            Comparison("constant β", "Flow-RWR"),
            Comparison("constant β", "SFT"),
            Comparison("Flow-RWR", "SFT"),
            Comparison("constant β", "β(1 − t)², low rate"),
            Comparison("constant β", "Flow-RWR, low rate"),
            Comparison("constant β", "SFT, low rate"),
            Comparison("Flow-RWR, low rate", "SFT, low rate"),
        ),
        "The mean of (1 − t)² over uniform times is 1/3, so 3 β(1 − t)² has the same mean strength "
        "as constant β. The paper trains offline; here all arms sample online. Low rate: 3e-4, not "
        "the recipe's 1e-3. In trials with one more seed, 3e-4 and 1e-4 gave constant β +0.157 "
        "and +0.045 in total, β(1 − t)² −0.027 and −0.017, Flow-RWR −0.178 and −0.048, SFT +0.007 "
        "and −0.006: at the lower of them little happens.",
    ),
    "hacking": Study(
        "A learned reward: what it does not see",
        "OnlineVPO: DPO 43.0 / 97.58 / 55.37, ReFL 40.0 / 96.59 / 51.84 (dynamic degree / subject "
        "consistency / quality).",
        {
            "DPO": Arm(recipe=LEARNED, evaluations=6, length=2),
            "ReFL": Arm(recipe="moving_shapes_refl", evaluations=6, length=2),
            "ReFL, low rate": Arm(LOW_RATE, "moving_shapes_refl", evaluations=6, length=2),
        },
        tuple(
            Comparison("DPO", refl, measure)
            for refl in ("ReFL", "ReFL, low rate")
            for measure in ("total", "dynamic_degree")
        ),
        "Trained on the shipped learned reward. The pixel oracle, which made that reward's labels, "
        "only watches: where the learned reward rises and the oracle does not, it was hacked. "
        "These arms take twice as many steps as all others. ReFL needs one video per prompt, DPO "
        "four: with the same prompts and steps ReFL sees a quarter of the videos. Low rate: 3e-4, "
        "not the recipe's 1e-3.",
    ),
    "dominance": Study(
        "Pairs that dominate (MPO) against plain pairs",
        "VisionReward: pairs whose chosen video is no worse in any dimension give 4.573, plain "
        "pairs 4.515, the base 4.303.",
        {"plain pairs": DEFAULT, "dominating": _with("selection.rule", "dominating")},
        (
            Comparison("dominating", "plain pairs"),
            Comparison("dominating", "plain pairs", "regressions", sign=-1),
        ),
        "Regressions: dimensions, of three, whose score fell below the base's, per held-out "
        "prompt. Both arms sample the same number of videos; the rule leaves fewer pairs. The "
        "paper's least margin of 0.6 belongs to its own scale and is 0 here.",
    ),
    "staleness": Study(
        "Staleness",
        "Nobody has published this for diffusion DPO. Staleness S: the weights that sample a round "
        "are S optimizer steps older than those that learn from it.",
        {
            "0": DEFAULT,
            "1": _with("rollouts.max_staleness", 1),
            "2": _with("rollouts.max_staleness", 2),
            "4": _with("rollouts.max_staleness", 4),
        },
        tuple(Comparison(late, "0", sign=0) for late in ("1", "2", "4")),
    ),
}
