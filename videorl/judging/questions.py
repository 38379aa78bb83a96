"""What people are asked about two videos, and what they may answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from videorl.errors import ConfigError

A, B, SAME, INVALID = "A", "B", "same", "invalid"
"""Answers of a comparison, as the label tables of VideoReward have them."""
BOTH, NEITHER = "both", "neither"
"""Answers of a checklist besides A and B, which then mean: yes for this video only."""
OVERALL = "Overall"
DIMENSIONS = ("VQ", "MQ", "TA")
_OTHER = {A: B, B: A}
_PROMPT = "[[prompt]]"


@dataclass(frozen=True, slots=True)
class Question:
    """A line of what is asked of every pair."""

    name: str
    text: str
    """`[[prompt]]` stands for the prompt."""

    def about(self, prompt: str) -> str:
        """Return the question for a prompt."""
        return self.text.replace(_PROMPT, prompt).strip()


@dataclass(frozen=True, slots=True)
class Choice:
    """A button: what it says, and what it means where A is on the left."""

    value: str
    text: str
    key: str


@dataclass(frozen=True, slots=True)
class Mode:
    """How the pairs of a study are judged."""

    questions: tuple[Question, ...]
    choices: tuple[Choice, ...]

    def check(self, choices: Mapping[str, str]) -> str:
        """Return what is wrong with answers by question; empty if nothing is."""
        names, values = {q.name for q in self.questions}, {c.value for c in self.choices}
        if strange := sorted(set(choices) - names):
            return f"asks no question {strange[0]!r}, but {', '.join(sorted(names))}"
        for name, value in choices.items():
            if value not in values:
                return f"{name} must be one of {', '.join(sorted(values))}, got {value!r}"
        return ""


def seen_as(value: str, left: str) -> str:
    """Turn an answer between how it is recorded and how it looks on the screen.

    On the screen, A is the left video; the two are the same unless B is on the left.
    """
    return value if left == A else _OTHER.get(value, value)


_COMPARED = (
    Choice(A, "Left", "1"),
    Choice(B, "Right", "2"),
    Choice(SAME, "Same", "3"),
    Choice(INVALID, "Cannot tell", "4"),
)
_TICKED = (
    Choice(A, "Left only", "1"),
    Choice(B, "Right only", "2"),
    Choice(BOTH, "Both", "3"),
    Choice(NEITHER, "Neither", "4"),
)
_ASKED = {
    "VQ": "Visual quality: which looks better? Sharpness, detail, colours, no artefacts.",
    "MQ": "Motion quality: which moves better? Smooth, stable, natural, as physics has it.",
    "TA": "Text alignment: which shows what the text says?",
}
MODES = ("dimensions", "overall", "checklist")


@cache
def mode_of(name: str) -> Mode:
    """Return how a study of this mode asks.

    - `dimensions`: VideoReward's three dimensions (arXiv 2501.13918).
    - `overall`: win, tie or loss (the user study of OnlineVPO, arXiv 2412.15159).
    - `checklist`: those 29 yes/no questions of VisionReward (arXiv 2412.21059) that have a weight.

    Raises:
        ConfigError: There is no such mode.
    """
    if name == "dimensions":
        return Mode(tuple(Question(key, text) for key, text in _ASKED.items()), _COMPARED)
    if name == "overall":
        return Mode((Question(OVERALL, "Which video is better, all in all?"),), _COMPARED[:3])
    if name == "checklist":
        from videorl.rewards.vision_reward.questions import weighted

        asked = tuple(Question(f"q{question.id}", question.text) for question in weighted())
        return Mode(asked, _TICKED)
    raise ConfigError(f"--mode must be one of {', '.join(MODES)}, got {name!r}")


def outcomes(mode: str, choices: Mapping[str, str]) -> dict[str, str]:
    """Return who won, by dimension: A, B, same or invalid.

    A checklist decides by VisionReward's score, the sum of the weights of what was answered with
    yes, over the questions that stand for each of VideoReward's dimensions, and over all of them.
    """
    if mode != "checklist":
        return dict(choices)
    from videorl.evaluation.reward_benchmark import MAPPINGS
    from videorl.rewards.vision_reward.questions import weighted

    mapping = MAPPINGS["videogen_rewardbench"]["vision_reward"]
    found: dict[str, str] = {}
    for name in (*DIMENSIONS, OVERALL):
        margin = 0.0
        for question in weighted():
            if name == OVERALL or question.dimension in mapping[name]:
                margin += question.weight * _SIGNS[choices[f"q{question.id}"]]
        found[name] = SAME if abs(margin) < 1e-9 else A if margin > 0 else B
    return found


_SIGNS = {A: 1, B: -1, BOTH: 0, NEITHER: 0}
