"""What the doctor says of an installation, sound and broken."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs import doctor, reward_checks
from jobs.doctor import Finding, attempt, check_package, check_video, show
from videorl.config import RewardConfig
from videorl.rewards.videos import open_videos
from videorl.types import Score


def test_package_that_is_pinned_and_present() -> None:
    assert check_package("pytest", ">=1", None).status == "ok"


@pytest.mark.parametrize(
    ("name", "specifier", "pin", "expected"),
    [
        ("no-such-package", ">=2", None, ("broken", "pip install no-such-package==2")),
        ("pytest", ">=999", None, ("broken", "pip install pytest==999")),
        ("pytest", ">=1", "1.2.3", ("warning", "tested with 1.2.3: pip install pytest==1.2.3")),
    ],
)
def test_package_that_differs(
    name: str, specifier: str, pin: str | None, expected: tuple[str, str]
) -> None:
    finding = check_package(name, specifier, pin)
    assert (finding.status, finding.fix) == expected


def test_local_build_suffix_is_not_a_difference() -> None:
    pin = doctor.metadata.version("torch").partition("+")[0]
    assert check_package("torch", ">=2", pin).status == "ok"


def test_every_direct_dependency_is_pinned() -> None:
    assert not [finding for finding in doctor.check_packages() if finding.status != "ok"]


def test_video_round_trip_works_here() -> None:
    assert check_video().status == "ok"


def test_whatever_a_check_raises_becomes_a_finding() -> None:
    def check() -> Finding:
        raise OSError("libcuda.so: cannot open\nsecond line")

    found = "OSError: libcuda.so: cannot open"
    assert attempt("GPU", check, "reinstall") == Finding("GPU", "broken", found, "reinstall")


def test_full_disk_is_broken_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_DISK_GB", 1e9)
    assert doctor.check_disk(Path.cwd()).status == "broken"


def test_fixes_follow_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    show([Finding("disk", "broken", "1 GB", "free [some] space"), Finding("Ray", "ok", "here")])
    assert capsys.readouterr().out.splitlines()[-1] == "disk broken: free [some] space"


class Blind:
    """A reward that ignores the prompt and likes dark clips."""

    dimensions = ("darkness",)

    def score(self, videos: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        clips = [video.read(range(3)) for video in open_videos(videos, prompts)]
        values = [-float(clip.mean()) for clip in clips]
        return [Score({"darkness": value}, value) for value in values]


def test_sanity_names_a_reward_that_ignores_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_checks, "NUM_CLIPS", 6)
    rewards = [
        RewardConfig(name="moving_shapes"),
        RewardConfig(name="tests.unit.jobs.test_doctor:Blind", label="blind"),
        RewardConfig(name="video_reward", path="/no/such/folder"),
    ]
    found = reward_checks.check_sanity(rewards, "moving_shapes")
    (oracle,) = (f for f in found if f.name == "reward moving_shapes" and "TA:" in f.found)
    assert oracle.status == "ok"
    (prompt,) = (f for f in found if f.name == "reward blind" and "TA:" in f.found)
    assert prompt.status == "warning" and "ignores the prompt" in prompt.fix
    assert (found[-1].name, found[-1].status) == ("reward video_reward", "broken")
