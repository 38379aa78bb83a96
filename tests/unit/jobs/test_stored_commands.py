"""Commands that take a run, on a run that is in an S3 store; nothing of it is on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import evaluate, judge, sample, scale, serve, top, train, watch
from jobs.places import here
from tests.s3_server import BUCKET, environment
from tests.stored_run import recipe_of
from videorl import one_process
from videorl.data.clips import find_clips
from videorl.errors import ConfigError, RunFolderError
from videorl.measures.policies import named_policies
from videorl.run.folder import RunFolder, open_run
from videorl.run.pool_sizes import PoolSize, PoolState, read_wishes, write_states
from videorl.storage.preparing import open_place


@pytest.fixture(scope="module")
def stored(
    s3_port: int, tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URI of a finished run, which this process may read, and its machine has forgotten."""
    uri = f"s3://{BUCKET}/commands/first"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3_port).items():
            patch.setenv(name, value)
        patch.setenv("VIDEORL_COPIES", str(tmp_path_factory.mktemp("trained")))
        changes = {"num_steps": 2, "checkpoint__interval": 1}
        recipe = recipe_of(uri, tiny_checkpoints["wan"], **changes)
        with open_run(recipe) as folder:
            assert one_process.run(recipe, folder, lambda: False)
        patch.setenv("VIDEORL_COPIES", str(tmp_path_factory.mktemp("looking")))
        yield uri


@pytest.fixture
def reader(stored: str, s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, for somebody who may only read."""
    for name, value in environment(s3_port, "reader").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return stored


def test_a_finished_run_is_shown(reader: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert top.main([reader, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["step"], shown["num_steps"]) == ("finished", 2, 2)


def test_its_page_has_its_videos_and_what_comes_later(
    stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page itself is looked at in `test_watch_page.py`, on a folder."""
    shown: list[Path] = []
    monkeypatch.setattr("videorl.pages.watch.app.watch_app", shown.append)
    monkeypatch.setattr("jobs.places._AGAIN_S", 0.1)

    def look(*_: object) -> None:
        (root,) = shown
        assert list((root / "archive").rglob("*.mp4"))
        open_place(stored).write("later.txt", b"written by the run")
        end = time.monotonic() + 120
        while not (root / "later.txt").exists():
            assert time.monotonic() < end
            time.sleep(0.05)

    monkeypatch.setattr("videorl.pages.frame.serve", look)
    assert watch.main([stored]) == 0
    open_place(stored).delete("later.txt")


def test_its_pairs_are_judged_in_a_study_of_this_machine(
    reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--pairs", "random", "--mode", "overall", "--out", str(tmp_path / "study"), "--json"]
    assert judge.main([reader, *asked]) == 0
    assert json.loads(capsys.readouterr().out)
    study = json.loads((tmp_path / "study/study.json").read_text())
    assert len(study["pairs"]) > 1


def test_a_study_in_a_store_is_refused(stored: str, tmp_path: Path) -> None:
    """Its answers would be written to a copy."""
    study = tmp_path / "study"
    judge.main([stored, "--pairs", "random", "--out", str(study), "--json"])
    place = open_place(f"{stored}-study")
    for path in study.rglob("*"):
        if path.is_file():
            place.upload(path, path.relative_to(study).as_posix())
    with pytest.raises(ConfigError, match=r"-study is a study.* copy it to a folder"):
        judge.main([f"{stored}-study"])


def test_its_policy_is_served_sampled_and_measured(reader: str, tmp_path: Path) -> None:
    options = serve._parser().parse_args([reader, "--adapter", f"again={reader}"])
    served, name = serve._served(options)
    assert name == "moving_shapes"
    assert set(served.adapters) == {"moving_shapes", "again"}
    files = [Path(served.adapters[key]).glob("*.safetensors") for key in ("moving_shapes", "again")]
    assert [len(list(found)) for found in files] == [1, 1]

    out = ["--set", "sampling.num_inference_steps=1", "sampling.num_frames=5"]
    texts = ["a red circle", "--recipe", str(here(reader) / "config.yaml")]
    lora = f"{reader}/aligned"
    assert sample.main([*texts, "--lora", lora, "--out", str(tmp_path / "lora"), *out]) == 0
    words = ["a red circle", "--run", reader, "--step", "1", "--out", str(tmp_path / "run")]
    assert sample.main([*words, *out]) == 0
    assert len([*tmp_path.glob("lora/*.mp4"), *tmp_path.glob("run/*.mp4")]) == 2

    recipe = recipe_of(tmp_path / "x", tmp_path)
    newest, first = named_policies([f"new={reader}", f"old={reader}@1"], recipe)
    assert newest.checkpoint and newest.checkpoint.name == "published-2.safetensors"
    assert first.checkpoint and first.checkpoint.name == "published-1.safetensors"


def test_its_videos_can_be_scored(reader: str) -> None:
    assert len(find_clips(here(f"{reader}/archive/videos"), None).keys) > 1


def test_evaluate_does_not_write_into_it(reader: str) -> None:
    with pytest.raises(ConfigError, match=r"does not take the URI s3://.*copy the run to a folder"):
        evaluate.main([reader])


def test_a_size_is_asked_for_through_the_store(
    stored: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a driver's side as `videorl.storage.mirror` and `actors.pool.control` have it."""
    with pytest.raises(RunFolderError, match="is finished, there is nothing to resize"):
        scale._PATIENCE_FAR_S, before = 0.5, scale._PATIENCE_FAR_S
        try:
            scale.main([stored])
        finally:
            scale._PATIENCE_FAR_S = before

    uri, folder, stop = f"{stored}-running", RunFolder(tmp_path), threading.Event()
    place = open_place(uri)
    place.write("config.yaml", b"name: mine\n")

    def drive() -> None:
        beat, size = 0, PoolSize(1, 2)
        while not stop.wait(0.05):
            beat += 1
            if place.stat("scale.json"):
                folder.scale.write_bytes(place.read("scale.json"))
            wished = read_wishes(folder)
            now = wished["generator"].size if wished else size
            write_states(folder, beat, {"generator": PoolState(now, size, 1, 0, 0, 0)})
            place.upload(folder.pools, "pools.json")

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        assert scale.main([uri, "--max", "4", "--json"]) == 0
    finally:
        stop.set()
        driver.join()
    sizes = json.loads(capsys.readouterr().out)
    assert sizes["generator"]["size"] == {"min_workers": 1, "max_workers": 4}


def test_a_uri_is_no_place_of_results(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder `s3:` would be made in the working directory."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--out must be on a disk of this machine, got a URI"):
        sample.main(["a red circle", "--out", f"{stored}/samples"])
    with pytest.raises(ConfigError, match="must be on a disk of this machine, got a URI"):
        train.main(["moving_shapes", f"evaluation.base_cache={stored}/base"])
    assert list(tmp_path.iterdir()) == []
