"""`videorl measure` on policies: sampled once, scored, measured, compared with an earlier call."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from jobs import command
from jobs.exit_codes import ExitCode
from jobs.measure import main
from jobs.measuring.sources import read_policies
from videorl.ablation.recogniser import teach, write_clean_clips
from videorl.data.prompts import evaluation_prompts
from videorl.evaluation.held_out import evaluation_seeds
from videorl.measures import engines
from videorl.measures.policies import named_policies
from videorl.measures.suites import read_suite
from videorl.policies.checkpoints import SHIPPED
from videorl.recipes.reading import load_recipe
from videorl.run.checkpoints import CheckpointFolder

SMALL = ("--num-prompts", "2", "--local", "--set", "sampling.num_inference_steps=1")
METRICS = ("--metric", "temporal_flickering", "moved_light")


def run(*argv: object) -> int:
    return command.run(main, [str(word) for word in argv])


def test_policies_are_sampled_scored_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    policies = ("--policy", "base", f"same={SHIPPED['moving_shapes_wan']}")
    asked = (*policies, *SMALL, *METRICS, "--samples", 2, "--out", out)
    assert run(*asked, "--reward", "moving_shapes") == 0
    said = capsys.readouterr()
    assert "2 prompts: only win rates" in said.err  # before a video is sampled
    found = json.loads((out / "measured.json").read_text())
    base, same = (row["numbers"] for row in found["rows"])
    assert base["moving_shapes total"]["value"] == same["moving_shapes total"]["value"]
    assert same["moving_shapes total"]["difference"]["mean"] == 0.0
    rates = {rate["dimension"]: rate for rate in found["win_rates"]}
    assert rates["total"]["ties"] == 1.0 and rates["total"]["num_pairs"] == 4
    clips = pq.read_table(out / "measured.parquet").to_pylist()
    assert len(clips) == 8 and {row["folder"] for row in clips} == {"base", "same"}
    mean = sum(row["moved light"] for row in clips[:4]) / 4
    assert base["moved light"]["value"] == pytest.approx(mean)
    assert "Win rates against base" in (out / "measured.html").read_text()

    lost = out / "videos" / "same" / "00001-01.mp4"
    before = lost.read_bytes()
    lost.unlink()
    loaded: list[str] = []
    here = engines.here
    monkeypatch.setattr(engines, "here", lambda policy: loaded.append(policy.label) or here(policy))
    rules = ("--baseline", out / "measured.json", "--fail-if", "total < -1 %")
    assert run(*asked, "--reward", "moving_shapes", *rules) == 0
    assert loaded == ["same"]  # the other's videos are all there
    assert lost.read_bytes() == before

    worse = json.loads((out / "measured.json").read_text())
    value = worse["rows"][1]["numbers"]["moving_shapes total"]
    value["value"] = value["value"] + 1.0
    old = tmp_path / "old.json"
    old.write_text(json.dumps(worse))
    rules = ("--baseline", old, "--fail-if", "total < -1 %")
    assert run(*asked, "--reward", "moving_shapes", *rules) == ExitCode.FOUND_WRONG
    assert "FAILED: total < -1 %: moving_shapes total of same was" in capsys.readouterr().err

    refuses_what_was_made_otherwise(tmp_path, asked, capsys)
    assert run(*asked[:-4], "--samples", 1, "--out", out) == ExitCode.REFUSED
    assert "made otherwise (changed: samples)" in capsys.readouterr().err


def refuses_what_was_made_otherwise(
    tmp_path: Path, asked: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A baseline of other seeds before a video is made; of another network once all is measured."""
    baseline, (*_, out) = tmp_path / "baseline.json", asked
    found = json.loads((out / "measured.json").read_text())
    rules = ("--reward", "moving_shapes", "--baseline", baseline, "--fail-if", "total < 9")
    scored, elsewhere = (*asked, *rules), (*asked[:-1], tmp_path / "new", *rules)

    def refused(change: Callable[[dict[str, Any]], object], *words: object) -> str:
        other = copy.deepcopy(found)
        change(other)
        baseline.write_text(json.dumps(other))
        assert run(*(words or scored)) == ExitCode.REFUSED
        return capsys.readouterr().err

    others = ("--seed", 3, "--set", "sampling.guidance_scale=2")
    said = refused(lambda _: None, *elsewhere, *others)
    assert "base: seed was 0, is 3" in said and "sampling.guidance_scale was 1" in said
    assert not [*(tmp_path / "new").rglob("*.mp4")]
    said = refused(
        lambda other: other["made_with"]["measures"].update({"reward moving_shapes": "x"})
    )
    assert "reward moving_shapes was x, is " in said
    said = refused(lambda other: other["made_with"]["videos"]["same"].pop("seed"))
    assert "same: seed was not known, is 0" in said and "--accept-baseline" in said
    assert "does not say what it was made with" in refused(lambda other: other.pop("made_with"))
    assert run(*scored, "--accept-baseline") == ExitCode.FOUND_WRONG, "it is below 9"
    notes = json.loads((out / "measured.json").read_text())["notes"]
    assert any("the baseline was made with something else" in note for note in notes)


def test_a_stop_between_videos_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("moving_shapes", ["sampling.num_inference_steps=1"])
    (policy,) = named_policies(["base"], recipe)
    suite = read_suite("moving_shapes", 1, most=3)
    asked = iter([False, False, True])
    stopped = engines.sample_policies(
        [policy], suite, tmp_path, engines.here, lambda: next(asked, True)
    )
    assert stopped is None
    assert len([*tmp_path.rglob("*.mp4")]) == 1
    found = engines.sample_policies([policy], suite, tmp_path, engines.here, lambda: False)
    assert found is not None and len([*found["base"].glob("*.mp4")]) == 3
    listed = (found["base"] / "prompts.csv").read_text().splitlines()
    assert listed[1] == f"00000-00.mp4,{suite.prompts[0].text}"


def test_prompts_that_a_recipe_holds_out_from_its_own_are_measured_with(tmp_path: Path) -> None:
    """Every recipe for a real model says `split 64`, which is no file."""
    (tmp_path / "prompts.txt").write_text("\n".join(f"ball {number}" for number in range(9)))
    places = (f"prompts.source={tmp_path / 'prompts.txt'}", "evaluation.source=split 2")
    options = argparse.Namespace(policy=["base"], recipe="moving_shapes", set=places, suite=None)
    options.samples, options.seed, options.num_prompts = 1, 0, 0
    read = read_policies(options)
    assert read is not None
    recipe, _, suite = read
    held_out = [row.text for row in evaluation_prompts(recipe)]
    assert [prompt.text for prompt in suite.prompts] == held_out and len(held_out) == 2


def test_seeds_are_those_of_a_runs_own_evaluation() -> None:
    recipe = load_recipe("moving_shapes")
    suite = read_suite("moving_shapes", 3, seed=recipe.evaluation.seed, most=2)
    prompt = suite.prompts[1]
    assert suite.seeds(prompt) == evaluation_seeds(recipe, prompt, 3)


def test_prompts_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from videorl.errors import ConfigError

    with pytest.raises(ConfigError, match="not installed here"):
        read_suite("vbench", 1)
    package = tmp_path / "vbench"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    rows: list[dict[str, Any]] = [
        {"prompt_en": "a dog", "dimension": ["color", "scene"]},
        {"prompt_en": "a cat", "dimension": ["scene"]},
        {"prompt_en": "a dog", "dimension": ["scene"]},
    ]
    (package / "VBench_full_info.json").write_text(json.dumps(rows))
    monkeypatch.syspath_prepend(tmp_path)
    assert [p.text for p in read_suite("vbench", 1).prompts] == ["a dog", "a cat"]
    assert [p.text for p in read_suite("vbench:color", 1).prompts] == ["a dog"]
    with pytest.raises(ConfigError, match="no dimension 'taste'; it has color, scene"):
        read_suite("vbench:taste", 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", "a"], "two policies are called a"),
        (["a/b"], "must be NAME or NAME=PLACE"),
        (["a="], "must be NAME or NAME=PLACE"),
        (["a=/no/such/place"], "no such run, adapter or checkpoint"),
    ],
)
def test_policies_that_cannot_be_used(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--policy", *given, *SMALL, "--out", tmp_path) == ExitCode.REFUSED
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--metric", "diversity", "--video-mae", "/no/mae"], "nothing can be measured: diversity"),
        (["--metric", "imaging_quality"], "nothing can be measured: imaging quality"),
        (["--suite", "vbench"], "which is not installed here"),
        (["--answers", "/no/study"], "/no/study"),
        (["--vbench", "other=x.json"], "--vbench must be NAME=FILE with a name of a"),
        (["--scores", "a=/no/scores.parquet"], "/no/scores.parquet"),
        (["/no/folder"], "/no/folder"),
        (["--rewards", "/no/rewards.yaml"], "/no/rewards.yaml"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sampled(
    given: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "sample_policies", lambda *_: pytest.fail("it sampled"))
    words = given if given[0].startswith("--") else []
    folders = [] if words else given
    assert run(*folders, "--policy", "a", *SMALL, *words, "--out", tmp_path) == ExitCode.REFUSED
    assert said in capsys.readouterr().err
    assert not (tmp_path / "videos").exists()


def test_too_few_videos_for_fvd_are_refused_before_they_are_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = teach(tmp_path / "network", 1)
    clean = write_clean_clips(tmp_path / "clean", 2)
    asked = ("--metric", "fvd", "--video-mae", network, "--reference", clean)
    assert run("--policy", "a", *SMALL, *asked, "--out", tmp_path / "out") == ExitCode.REFUSED
    assert "2 clips for FVD on 32 features" in capsys.readouterr().err
    assert not (tmp_path / "out" / "videos").exists()


def test_videos_of_nobody_knows_what_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "00000-00.mp4").write_bytes(b"another policy's")
    assert run("--policy", "a", *SMALL, "--out", tmp_path) == ExitCode.REFUSED
    assert "has videos, but no policy.json" in capsys.readouterr().err


def test_a_run_without_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("base: moving_shapes\nname: mine\n")
    assert run("--policy", f"a={tmp_path}@7", *SMALL, "--out", tmp_path / "o") == ExitCode.REFUSED
    assert "there is no checkpoint of step 7 in" in capsys.readouterr().err


@pytest.mark.parametrize("is_far", [True, False])
def test_a_kept_checkpoint_is_found_wherever_the_run_has_its_own(
    is_far: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a store, or at a `checkpoint.location` of its own; a damaged newest is passed over."""
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "copies"))
    root = tmp_path / "store/mine"
    location = f"file://{root}/checkpoints" if is_far else str(tmp_path / "elsewhere")
    root.mkdir(parents=True)
    text = f"base: moving_shapes\nname: mine\ncheckpoint:\n  location: {location}\n"
    (root / "config.yaml").write_text(text)
    checkpoints = CheckpointFolder(location, keep=9)
    for step in (2, 4, 6):
        weights = {f"published-{step}": {"weight": torch.full((1,), float(step))}}
        checkpoints.write(step, weights, {"loop": {}, "published": {str(step): "d"}})
    place = Path(location.removeprefix("file://"), "step-000006/published-6.safetensors")
    place.write_bytes(b"cut")
    run = f"file://{root}" if is_far else f"{root}"
    policies = named_policies([f"a={run}@2", f"b={run}"], load_recipe("moving_shapes"))
    found = [policy.weights() for policy in policies]
    assert [weights and weights["weight"].item() for weights in found] == [2, 4]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "nothing to measure"),
        (["clips", "--suite", "x"], "--suite has no effect without --policy"),
        (["--policy", "a", "--samples", "0"], "--samples must be >= 1"),
        (["--policy", "a", "--local", "--address", "auto"], "--address has no effect"),
        (["--policy", "a", "--prompts", "x.csv"], "--prompts is for folders of videos"),
        (["clips", "--fail-if", "FVD > 1"], "--baseline and --fail-if go together"),
        (["clips", "--metric", "diversity"], "diversity needs a checkpoint"),
    ],
)
def test_options_that_contradict(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(argv)
    assert said in capsys.readouterr().err
