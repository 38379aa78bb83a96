"""An interrupted evaluation goes on where it was: nothing is sampled twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes import FakePolicy, FakeReward, published
from tests.small_runs import small_recipe
from videorl import one_process
from videorl.config import Recipe
from videorl.errors import MediaLostError, PoolFailedError, WorkLostError
from videorl.evaluation.held_out import sample_and_score
from videorl.evaluation.kept_groups import KeptGroups, path_of, path_of_base
from videorl.evaluation.record import group_to_json
from videorl.recipes.reading import load_recipe
from videorl.report.ending import kept_groups
from videorl.run.folder import RunFolder, open_run
from videorl.sampling.local import LocalGenerator, LocalScorer
from videorl.types import CandidateGroup, Media, Prompt, SampleRequest, ScoredGroup, WeightVersion

VERSION, WEIGHTS = published(0.5)
NUM_PROMPTS = 5


@dataclass
class Sampler:
    """A generator that counts what it samples, and whose process may die."""

    counted: Counter[str] = field(default_factory=Counter[str])
    dies_at: int = -1
    inner: LocalGenerator = field(
        default_factory=lambda: LocalGenerator(FakePolicy(), "", lambda _: WEIGHTS)
    )

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        if self.counted.total() == self.dies_at:
            raise KeyboardInterrupt
        self.counted[request.prompt.text] += 1
        return self.inner.submit(request)


@dataclass
class Shelf:
    """Keeps which videos were saved."""

    saved: list[str] = field(default_factory=list[str])
    is_lost: bool = False

    def __call__(self, files: Mapping[Path, Media]) -> None:
        if self.is_lost:
            raise MediaLostError("its node left")
        for path, video in files.items():
            assert video is not None
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"video")
            self.saved.append(path.name)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "held_out.txt").write_text("\n".join(f"ball {n}" for n in range(NUM_PROMPTS)))
    settings = {
        "evaluation.source": tmp_path / "held_out.txt",
        "evaluation.num_videos": 2,
        "rewards": "[{name: moving_shapes}]",
        "run_dir": tmp_path / "run",
    }
    return load_recipe("moving_shapes", [f"{key}={value}" for key, value in settings.items()])


def evaluate(
    recipe: Recipe,
    generator: Sampler,
    should_stop: Callable[[], bool] = lambda: False,
    shelf: Shelf | None = None,
) -> list[ScoredGroup] | None:
    """Evaluate as a run does, in a new process."""
    save = shelf or Shelf()
    folder = RunFolder(Path(recipe.run_dir))
    return sample_and_score(
        recipe,
        VERSION,
        generator,
        LocalScorer({"moving_shapes": FakeReward()}, recipe.rewards, lambda _: {"edges": 0.1}),
        samples=3,
        should_stop=should_stop,
        kept=kept_groups(recipe, folder, "before", VERSION, save),
    )


def plain(groups: list[ScoredGroup] | None) -> list[object]:
    assert groups is not None
    return [group_to_json(group) for group in groups]


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("after", range(NUM_PROMPTS))
def test_an_evaluation_that_ends_at_any_prompt_goes_on_there(
    how: str, after: int, recipe: Recipe, tmp_path: Path
) -> None:
    whole = plain(evaluate(recipe, Sampler()))
    recipe.run_dir = str(tmp_path / "again")
    generator, shelf = Sampler(dies_at=after if how == "killed" else -1), Shelf()
    if how == "killed":
        with pytest.raises(KeyboardInterrupt):
            evaluate(recipe, generator, shelf=shelf)
    else:

        def should_stop() -> bool:
            return generator.counted.total() == after

        assert evaluate(recipe, generator, should_stop, shelf) is None
    assert generator.counted.total() == after
    generator.dies_at = -1
    assert plain(evaluate(recipe, generator, shelf=shelf)) == whole
    assert generator.counted == {f"ball {n}": 1 for n in range(NUM_PROMPTS)}
    assert sorted(shelf.saved) == ["000000.mp4", "000001.mp4"]
    assert plain(evaluate(recipe, generator)) == whole
    assert generator.counted.total() == NUM_PROMPTS


def test_videos_that_can_be_looked_at_are_named_with_their_scores_as_they_come(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    (first, *_) = evaluate(recipe, Sampler()) or []
    folder, total = Path(recipe.run_dir) / "evaluation/before", first.candidates[0].score.total
    shown = [line for line in capsys.readouterr().err.splitlines() if str(folder) in line]
    assert len(shown) == recipe.evaluation.num_videos
    assert shown[0].startswith(f"{folder}/000000.mp4: 'ball 0', total {total:+.2f} (")


def test_a_prompt_that_lost_candidates_is_sampled_again_another_time(recipe: Recipe) -> None:
    """A fault that passes does not shrink the evaluation for good."""

    class Lossy(Sampler):
        def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
            found = super().submit(request)
            if request.prompt.index or request.first < 2:
                return found
            lost: Future[CandidateGroup] = Future()
            lost.set_exception(WorkLostError("every worker that tried has died"))
            return lost

    recipe.generators.candidates_per_request = 2
    assert len(plain(evaluate(recipe, Lossy()))) == NUM_PROMPTS - 1
    again = evaluate(recipe, Sampler())
    assert again is not None
    assert [group.prompt.index for group in again] == list(range(NUM_PROMPTS))
    assert [len(group.candidates) for group in again] == [3] * NUM_PROMPTS


def test_what_came_out_of_order_before_a_stop_is_kept(recipe: Recipe) -> None:
    """The first prompt takes for ever; the others are ready when the run is to stop."""
    hold = threading.Event()
    threads = ThreadPoolExecutor(2)
    asked: list[Future[CandidateGroup]] = []

    class Pool(Sampler):
        def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
            def sample() -> CandidateGroup:
                assert request.prompt.index or hold.wait(180)
                return Sampler().submit(request).result()

            asked.append(threads.submit(sample))
            return asked[-1]

    def should_stop() -> bool:
        is_time = sum(future.done() for future in asked) == NUM_PROMPTS - 1
        if is_time:
            threads.submit(int).result(180)  # after what is sampled has been scored, in its thread
        return is_time

    assert evaluate(recipe, Pool(), should_stop) is None
    hold.set()
    again = Sampler()
    assert len(plain(evaluate(recipe, again))) == NUM_PROMPTS
    assert again.counted == {"ball 0": 1}


def test_what_came_with_an_error_that_ends_the_run_is_kept(recipe: Recipe) -> None:
    asked: list[tuple[SampleRequest, Future[CandidateGroup]]] = []

    class Pool(Sampler):
        """Answers all at once, when the last prompt is asked for."""

        def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
            asked.append((request, Future()))
            for known, future in asked if len(asked) == NUM_PROMPTS else ():
                if known.prompt.index == 0:
                    future.set_exception(PoolFailedError("no worker can start"))
                else:
                    future.set_result(Sampler().submit(known).result())
            return asked[-1][1]

    with pytest.raises(PoolFailedError, match="no worker can start"):
        evaluate(recipe, Pool())
    again = Sampler()
    assert len(plain(evaluate(recipe, again))) == NUM_PROMPTS
    assert again.counted == {"ball 0": 1}


def test_a_torn_line_costs_its_group_alone(recipe: Recipe) -> None:
    generator = Sampler(dies_at=3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(recipe, generator)
    (path,) = Path(recipe.run_dir).glob("evaluation/groups/*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    generator.dies_at = -1
    assert len(plain(evaluate(recipe, generator))) == NUM_PROMPTS
    assert generator.counted["ball 2"] == 2 and generator.counted.total() == NUM_PROMPTS + 1
    evaluate(recipe, generator)
    assert generator.counted.total() == NUM_PROMPTS + 1, "the line after the torn one is whole"


def test_a_group_that_is_shown_without_its_video_is_sampled_again(recipe: Recipe) -> None:
    generator = Sampler()
    evaluate(recipe, generator)
    (Path(recipe.run_dir) / "evaluation/before/000001.mp4").unlink()
    evaluate(recipe, generator)
    assert generator.counted == {f"ball {n}": 2 if n == 1 else 1 for n in range(NUM_PROMPTS)}


def test_a_video_that_is_lost_costs_no_group(recipe: Recipe) -> None:
    assert issubclass(MediaLostError, WorkLostError)
    assert len(plain(evaluate(recipe, Sampler(), shelf=Shelf(is_lost=True)))) == NUM_PROMPTS


OTHERS: dict[str, Callable[[Recipe], object]] = {
    "sampling": lambda recipe: setattr(recipe.sampling, "guidance_scale", 2.0),
    "reward": lambda recipe: setattr(recipe.rewards[0], "weight", 2.0),
    "seeds": lambda recipe: setattr(recipe.evaluation, "seed", 9),
    "metrics": lambda recipe: recipe.metrics.unseen.append("mine:metric"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_groups_made_under_other_settings_are_not_used(what: str, recipe: Recipe) -> None:
    generator = Sampler()
    evaluate(recipe, generator)
    OTHERS[what](recipe)
    evaluate(recipe, generator)
    assert generator.counted.total() == 2 * NUM_PROMPTS


def test_a_copied_policy_is_the_same_and_a_changed_one_is_not(
    recipe: Recipe, tmp_path: Path
) -> None:
    path = path_of(tmp_path, recipe, VERSION)
    assert path == path_of(tmp_path, recipe, VERSION)
    assert path != path_of(tmp_path, recipe, published(0.7)[0])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").write_text("{}")
    recipe.policy.path = str(tmp_path / "a")
    path = path_of(tmp_path, recipe, VERSION)
    recipe.policy.path = str(tmp_path / "b")
    assert path == path_of(tmp_path, recipe, VERSION)
    (tmp_path / "b/model_index.json").write_text("[]")
    assert path != path_of(tmp_path, recipe, VERSION)


def test_nothing_is_kept_without_a_place() -> None:
    kept = KeptGroups(None)
    request = SampleRequest(0, Prompt(0, "a ball"), (1,), VERSION)
    kept.add(request, ScoredGroup(request.prompt, None, (), {}))
    assert kept.find(request) is None


def test_a_run_that_is_stopped_in_its_last_evaluation_samples_the_rest_alone(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_recipe("moving_shapes", tiny_checkpoints, tmp_path / "run")
    made.num_steps, made.evaluation.source, made.evaluation.num_prompts = 1, "moving_shapes", 3
    made.evaluation.best_of = made.evaluation.samples = made.evaluation.num_videos = 1
    asked: list[SampleRequest] = []
    submit = LocalGenerator.submit

    def counting(self: LocalGenerator, request: SampleRequest) -> Future[CandidateGroup]:
        asked.append(request)
        return submit(self, request)

    monkeypatch.setattr(LocalGenerator, "submit", counting)

    def of_evaluation() -> list[tuple[str, int]]:
        return [
            (request.prompt.text, request.version.step)
            for request in asked
            if len(request.seeds) == 1
        ]

    for stop_at in (2, 4, 99):
        with open_run(made) as folder:
            is_done = one_process.run(made, folder, lambda n=stop_at: len(of_evaluation()) >= n)
        assert is_done == (stop_at == 99)
    assert len(of_evaluation()) == len(set(of_evaluation())) == 6
    assert "<video" in (folder.root / "report.html").read_text()


def test_a_base_is_evaluated_once_for_all_runs_with_the_same_samples(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Another training seed and another adapter are the same base; another sampler is not."""
    recipe.evaluation.base_cache = str(tmp_path / "bases")
    first, shelf = Sampler(), Shelf()
    whole = plain(evaluate(recipe, first, shelf=shelf))
    assert first.counted.total() == NUM_PROMPTS
    later = Sampler()
    recipe.run_dir, recipe.seed, recipe.policy.lora.rank = str(tmp_path / "later"), 7, 2
    assert plain(evaluate(recipe, later)) == whole
    assert later.counted.total() == 0
    assert len(list((tmp_path / "later/evaluation/before").glob("*.mp4"))) == 2, "its videos too"
    assert path_of_base(recipe, VERSION) is not None
    assert path_of_base(recipe, WeightVersion(3, VERSION.digest)) is None, "learned meanwhile"
    recipe.sampling.num_inference_steps += 1
    recipe.run_dir = str(tmp_path / "other")
    evaluate(recipe, later)
    assert later.counted.total() == NUM_PROMPTS


def test_runs_that_number_prompts_differently_share_the_right_videos(
    recipe: Recipe, tmp_path: Path
) -> None:
    """In a file that is read backwards the first prompt has the last number."""
    bases, backwards = str(tmp_path / "bases"), tmp_path / "backwards.txt"
    recipe.evaluation.base_cache = bases
    evaluate(recipe, Sampler(), shelf=Hashed())
    backwards.write_text("\n".join(f"ball {n}" for n in reversed(range(NUM_PROMPTS))))
    recipe.evaluation.source, recipe.evaluation.num_videos = str(backwards), NUM_PROMPTS
    shown: list[dict[str, str]] = []
    for cache, count in ((bases, 3), ("", 5)):  # two prompts have a video there
        recipe.run_dir, recipe.evaluation.base_cache = str(tmp_path / f"run-{count}"), cache
        generator = Sampler()
        evaluate(recipe, generator, shelf=Hashed())
        assert generator.counted.total() == count
        folder = Path(recipe.run_dir) / "evaluation/before"
        shown.append({path.name: path.read_text() for path in folder.glob("*.mp4")})
    assert shown[0] == shown[1] and len(shown[0]) == NUM_PROMPTS


class Hashed(Shelf):
    """Writes what tells a video from others in its place."""

    def __call__(self, files: Mapping[Path, Media]) -> None:
        for path, video in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(sha256(video.frames.tobytes()).hexdigest())  # pyright: ignore


def test_a_shared_folder_that_cannot_be_written_to_ends_no_run(
    recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "bases").write_text("a file")
    recipe.evaluation.base_cache = str(tmp_path / "bases")
    generator = Sampler()
    assert len(plain(evaluate(recipe, generator))) == NUM_PROMPTS
    evaluate(recipe, generator)
    assert generator.counted.total() == NUM_PROMPTS, "the run itself has kept them"


def test_changed_code_of_a_metric_is_measured_anew(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_metric_of_kept_groups.py"
    module.write_text("def one(video): return {'one': 1.0}")
    monkeypatch.syspath_prepend(tmp_path)
    import_module(module.stem)  # as reading the recipe does
    recipe.metrics.unseen, recipe.evaluation.base_cache = [f"{module.stem}:one"], str(tmp_path)
    before = path_of(tmp_path, recipe, VERSION), path_of_base(recipe, WeightVersion(0, ""))
    assert before == (path_of(tmp_path, recipe, VERSION), path_of_base(recipe, VERSION))
    module.write_text("def one(video): return {'one': 2.0}")
    after = path_of(tmp_path, recipe, VERSION), path_of_base(recipe, WeightVersion(0, ""))
    assert before[0] != after[0] and before[1] != after[1]


def test_a_base_is_another_one_under_other_libraries_or_pictures(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.evaluation.base_cache = str(tmp_path)
    picture, table = tmp_path / "0.png", tmp_path / "held_out.csv"
    table.write_text(f"prompt,image\nturn,{picture}\n")
    found = [path_of_base(recipe, VERSION)]
    with monkeypatch.context() as patch:
        patch.setattr(f"{KeptGroups.__module__}.versions_here", lambda: ("", {"torch": "0.1"}))
        found.append(path_of_base(recipe, VERSION))
    recipe.evaluation.source = str(table)
    for grey in (10, 200):
        Image.new("L", (4, 4), grey).save(picture)
        found.append(path_of_base(recipe, VERSION))
    assert len({*found}) == 4
