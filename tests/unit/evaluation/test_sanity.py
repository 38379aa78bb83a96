"""Clips spoiled on purpose, and what is said of rewards that do not see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from videorl.data.clips import ClipSource, find_clips
from videorl.data.score_reading import ScoredClips
from videorl.data.video_io import read_video, write_mp4
from videorl.errors import ConfigError
from videorl.evaluation.reward_benchmark import MAPPINGS
from videorl.evaluation.sanity import Finding, findings, format_findings, to_json
from videorl.evaluation.spoiling import (
    AS_IS,
    SPOILINGS,
    blurred,
    frozen,
    in_blocks,
    key_of,
    other_prompts,
    shuffled,
    spoiled,
)
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.rewards.scoring import score_each
from videorl.types import Score
from videorl.worlds.grammar import parse, prompts
from videorl.worlds.moving_shapes import training_clip

TEXTS = prompts("held_out")[:6]
RNG = np.random.default_rng(0)
MAPPING = MAPPINGS["videogen_rewardbench"]["moving_shapes"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSource:
    """Clean clips of Moving Shapes, one per prompt."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(3)
    for number, text in enumerate(TEXTS):
        write_mp4(folder / f"{number}.mp4", training_clip(rng, parse(text)))
        (folder / f"{number}.txt").write_text(text)
    return find_clips(folder)


def scored(source: ClipSource, folder: Path, change: Callable[[Score], Score]) -> ScoredClips:
    """Score every clip with the reward of Moving Shapes; `change` makes another of it."""
    model = MovingShapesReward()
    scores: dict[tuple[str, str], Score | str] = {}
    for clip in source.read(source.keys):
        path = folder / "clip.mp4"
        path.write_bytes(clip.content if isinstance(clip.content, bytes) else b"damaged")
        score = score_each(model, [path], [clip.prompt])[0]
        scores[clip.key] = change(score) if isinstance(score, Score) else str(score)
    return ScoredClips("moving_shapes", "mine", scores)


def verdicts(found: list[Finding]) -> dict[str, str]:
    return {finding.spoiling: finding.verdict for finding in found}


def test_pixels_are_spoiled_by_hand_computed_rules() -> None:
    frames = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
    assert (frozen(frames, RNG) == frames[2]).all()
    mixed = shuffled(frames, RNG)
    assert sorted(mixed[:, 0, 0, 0]) == sorted(frames[:, 0, 0, 0])
    assert (np.diff(mixed[:, 0, 0, 0].astype(int)) != 48).all()  # 48 lie between neighbours
    # Blocks of 2 x 2 pixels: values 0, 3, 12, 15 of a channel have the mean 7.5, rounded to even.
    blocks = in_blocks(frames, RNG)
    assert blocks[0, :2, :2, 0].tolist() == [[8, 8], [8, 8]]
    assert in_blocks(frames[:, :3], RNG).shape == (5, 3, 4, 3)  # a last row of half blocks
    edge = np.zeros((1, 64, 64, 3), np.uint8)
    edge[:, :, 32:] = 255
    soft = blurred(edge, RNG)
    assert 0 < soft[0, 0, 31, 0] < soft[0, 0, 32, 0] < 255


def test_every_clip_gets_the_prompt_of_another() -> None:
    others = other_prompts(["a", "b", "c", "a", ""], 0)
    assert others.pop("") == ""
    assert set(others) == set(others.values()) == {"a", "b", "c"}
    assert all(prompt != other for prompt, other in others.items())
    with pytest.raises(ConfigError, match="two prompts or more, got"):
        other_prompts(["a", "a", ""], 0)


def test_spoiled_files_are_the_same_each_time(clips: ClipSource, tmp_path: Path) -> None:
    source = spoiled(clips)
    assert len(source.keys) == len(set(source.keys)) == 6 * (1 + len(SPOILINGS))
    last = source.keys[-1]
    again = list(source.read([last]))
    assert [clip.key for clip in again] == [last]
    whole = {clip.key: clip.content for clip in source.read(source.keys)}
    assert again[0].content == whole[last]
    shuffled_keys = [key for key in source.keys if "shuffled" in key[0]]
    for clip in source.read(shuffled_keys):  # as after a stop, when only these are left
        assert clip.content == whole[clip.key]
    path = tmp_path / "one.mp4"
    frozen_key = next(key for key in source.keys if "frozen" in key[0])
    content = next(iter(source.read([frozen_key]))).content
    assert isinstance(content, bytes)
    path.write_bytes(content)
    frames = read_video(path).frames.astype(int)
    assert abs(frames - frames[0]).max() <= 8  # but for what the encoder loses


def test_a_good_reward_sees_everything_and_others_are_named(
    clips: ClipSource, tmp_path: Path
) -> None:
    source = spoiled(clips)
    good = scored(source, tmp_path, lambda score: score)
    found = findings(clips.keys, good, MAPPING)
    assert set(verdicts(found).values()) == {"sees it"}, format_findings(found)
    assert format_findings(found).count("\n") == len(SPOILINGS)  # and no sentence

    def blind(score: Score) -> Score:
        """Ignore the prompt, and like what stands still."""
        given = {**score.dimensions, "text_alignment": 0.5}
        given["motion_quality"] *= -1
        return Score(given, sum(given.values()))

    bad = findings(clips.keys, scored(source, tmp_path, blind), MAPPING)
    assert verdicts(bad)["the prompt of another clip"] == "does not see it"
    assert verdicts(bad)["a frozen frame"] == "prefers it"
    text = format_findings(bad)
    assert "mine does not tell prompts apart (text_alignment)" in text
    assert "mine scores a frozen frame HIGHER (motion_quality)" in text
    assert to_json(bad)["results"][0]["verdict"] == "does not see it"


def test_what_has_no_score_is_counted(tmp_path: Path) -> None:
    write_mp4(tmp_path / "whole.mp4", training_clip(RNG, parse(TEXTS[0])))
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    for name, text in zip(("whole", "damaged"), TEXTS, strict=False):
        (tmp_path / f"{name}.txt").write_text(text)
    some = find_clips(tmp_path)
    (tmp_path / "work").mkdir()
    found = findings(some.keys, scored(spoiled(some), tmp_path / "work", lambda it: it), MAPPING)
    assert {(one.num_clips, one.num_skipped) for one in found} == {(1, 1)}
    assert "1 (1 left out)" in format_findings(found)
    nothing = ScoredClips("moving_shapes", "mine", {})
    assert set(verdicts(findings(some.keys, nothing, MAPPING)).values()) == {"unknown"}


def test_a_clip_too_large_to_spoil_is_not_taken_for_a_spoiled_one(
    clips: ClipSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VIDEORL_VIDEO_MAX_MIB", "0.001")  # a reward may still read a few frames
    asked = [key for key in spoiled(clips).keys if key[0].startswith("0.mp4")]
    found = {clip.key: clip.content for clip in spoiled(clips).read(asked)}
    is_whole = {key[0].partition(" ")[2]: bool(content) for key, content in found.items()}
    others = {f"[{way.name}]": way.spoil is None for way in SPOILINGS}
    assert is_whole == {f"[{AS_IS}]": True, **others}
    assert "its pixels cannot be spoiled" in caplog.text and "MAX_MIB" in caplog.text


def test_a_clip_without_a_prompt_says_nothing_of_prompts() -> None:
    keys = [("0.mp4", "a"), ("1.mp4", "b"), ("2.mp4", "")]
    others = other_prompts([prompt for _, prompt in keys], 0)
    scores: dict[tuple[str, str], Score | str] = {}
    for key in keys:
        scores[key_of(key, AS_IS, others)] = Score({}, 1.0)
        for way in SPOILINGS:
            scores[key_of(key, way.name, others)] = Score({}, 0.0 if key[1] else 1.0)
    found = findings(keys, ScoredClips("image_reward", "mine", scores), {})
    prompt, *pixels = found
    assert prompt.spoiling == "the prompt of another clip"
    assert (prompt.num_clips, prompt.num_skipped, prompt.verdict) == (2, 1, "sees it")
    assert {(one.num_clips, one.num_skipped) for one in pixels} == {(3, 0)}
