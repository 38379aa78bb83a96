"""`videorl measure` on real files, with a tiny VideoMAE through the code that loads real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from jobs import command
from jobs.exit_codes import ExitCode
from jobs.measure import main
from tests.video_files import moving_pattern
from videorl.data.video_io import write_mp4
from videorl.measures.flickering import temporal_flickering
from videorl.measures.store import FILE
from videorl.types import Video

PROMPTS = ("a dog", "a cat", "a bird")


def clips(
    folder: Path,
    names: tuple[str, ...] = ("0", "1", "2"),
    *,
    frames: int = 6,
    speed: int = 1,
    size: tuple[int, int] = (32, 48),
    fps: float = 8.0,
) -> Path:
    """Write a clip per name; with more `speed`, more changes from frame to frame."""
    folder.mkdir()
    for number, name in enumerate(names):
        pixels = moving_pattern(frames * speed + number, *size)[number::speed][:frames] // 2
        write_mp4(folder / f"{name}.mp4", Video(pixels, fps))
        (folder / f"{name}.txt").write_text(PROMPTS[number % 3])
    return folder


def tiny_video_mae(folder: Path) -> Path:
    torch.manual_seed(0)
    config = VideoMAEConfig(
        hidden_size=4,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        num_frames=4,
        tubelet_size=2,
    )
    VideoMAEForVideoClassification(config).save_pretrained(folder)
    return folder


def run(*argv: object) -> int:
    return command.run(main, [str(word) for word in argv])


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "measured.json").read_text())


def mean_of(path: Path) -> float:
    from videorl.data.video_io import read_video

    return temporal_flickering(iter([read_video(path).frames]))


def test_flickering_of_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = clips(tmp_path / "slow_one"), clips(tmp_path / "fast", speed=4)
    out = tmp_path / "out"
    assert run(a, b, "--out", out) == 0
    slow, fast = (row["numbers"]["temporal flickering"] for row in results(out)["rows"])
    by_hand = [mean_of(path) for path in a.glob("*.mp4")]
    assert slow["value"] == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert slow["difference"] is None
    assert fast["value"] < slow["value"]
    assert fast["difference"]["mean"] == pytest.approx(fast["value"] - slow["value"])
    assert fast["difference"]["high"] < 0 and fast["num_prompts"] == 3
    printed = capsys.readouterr()
    assert "slow_one" in printed.out and "seen from" in printed.out
    assert "3 prompts: only win rates near 100 %" in printed.err
    assert f"\\textbf{{{100 * slow['value']:.2f}}}" in (out / "measured.tex").read_text()
    assert r"slow\_one" in (out / "measured.tex").read_text()
    assert f"**{100 * slow['value']:.2f}**" in (out / "measured.md").read_text()


def test_it_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from videorl.measures import measuring

    a, out = clips(tmp_path / "a"), tmp_path / "out"
    calls = 0

    def counted(parts: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return temporal_flickering(parts)

    monkeypatch.setattr(measuring, "temporal_flickering", counted)
    assert run(a, "--out", out) == ExitCode.STOPPED
    assert "the same command goes on" in capsys.readouterr().err
    with (out / FILE).open("a") as file:
        file.write('{"clip": "cut sho')
    assert run(a, "--out", out) == 0
    assert calls == 4  # three clips, one of them twice
    write_mp4(a / "0.mp4", Video(np.zeros((6, 32, 48, 3), np.uint8), 8.0))
    assert run(a, "--out", out) == 0
    assert calls == 5  # a clip that has changed is measured again


def test_fvd_through_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(map(str, range(9)))
    a, b = clips(tmp_path / "a", names), clips(tmp_path / "b", names, speed=3)
    clean = clips(tmp_path / "clean", names)
    place, out = tiny_video_mae(tmp_path / "mae"), tmp_path / "out"
    asked = (a, b, "--metric", "fvd", "--video-mae", place, "--out", out, "--at-infinity")
    assert run(*asked, "--reference", clean) == 0
    same, other = (row["numbers"] for row in results(out)["rows"])
    assert same["FVD (VideoMAE)"]["value"] == pytest.approx(0.0, abs=1e-6)  # the same clips
    assert other["FVD (VideoMAE)"]["value"] > 1e-4
    interval = other["FVD (VideoMAE)"]["interval"]
    assert interval["low"] <= interval["mean"] <= interval["high"]
    assert "FVD (VideoMAE) at infinity" in other
    few = clips(tmp_path / "few", ("0", "1", "2", "3"))
    measured = (out / FILE).read_bytes()
    assert run(*asked, "--reference", few) == ExitCode.REFUSED
    assert "few: 4 clips for FVD on 4 features" in capsys.readouterr().err
    assert (out / FILE).read_bytes() == measured  # it is said before anything is measured
    assert run(*asked[:-1], "--reference", few, "--few-clips") == 0
    assert results(out)["notes"] == ["FVD (VideoMAE) of few: 4 clips are too few for 4 features"]
    assert run(*asked, "--reference", few, "--few-clips") == 1
    assert "too few clips for a line" in results(out)["notes"][0]
    five = clips(tmp_path / "five", ("0", "1", "2", "3", "4"))
    (five / "4.mp4").write_bytes(b"damaged")
    assert run(*asked[:-1], "--reference", five) == 1  # the others' numbers are not lost for it
    assert "FVD (VideoMAE) of a is not measured: five: 4 clips" in results(out)["notes"][0]


def test_features_are_those_of_the_classifier(tmp_path: Path) -> None:
    from videorl.measures.video_mae import VideoMAEFeatures

    place = tiny_video_mae(tmp_path / "mae")
    frames = moving_pattern(4, 16, 16)
    network = VideoMAEFeatures(str(place), "cpu")
    stock = VideoMAEForVideoClassification.from_pretrained(place).eval()
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255.0
    with torch.no_grad():
        expected = stock(pixel_values=pixels).logits[0]
        found = stock.classifier(torch.from_numpy(network.of(frames)))
        assert torch.allclose(found, expected, atol=1e-5)
        colours = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
        (place / "preprocessor_config.json").write_text(json.dumps(colours))
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in colours.values())
        expected = stock(pixel_values=(pixels - mean) / deviation).logits[0]
        found = stock.classifier(torch.from_numpy(VideoMAEFeatures(str(place), "cpu").of(frames)))
    assert torch.allclose(found, expected, atol=1e-5)


def test_what_is_absent_is_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIDEORL_VBENCH_PYTHON", raising=False)
    a, out, lost = clips(tmp_path / "a"), tmp_path / "out", tmp_path / "no_mae"
    fvd = ("--reference", a.parent / "clean", "--video-mae", lost, "--i3d", lost)
    clips(tmp_path / "clean")
    asked = ("--metric", "temporal_flickering", "motion_smoothness", "fvd", "fvd_i3d")
    assert run(a, *asked, *fvd, "--out", out) == 1
    said = " ".join(results(out)["notes"])
    assert "amt-s.pth" in said and "--vbench-python" in said
    assert f"{lost}: there is no such folder" in said and f"{lost}/i3d_torchscript.pt" in said
    assert "temporal flickering" in results(out)["rows"][0]["numbers"]
    alone = ("--reference", a.parent / "clean", "--i3d", lost)
    assert run(a, "--metric", "fvd_i3d", *alone, "--out", out) == ExitCode.REFUSED
    assert "nothing can be measured" in capsys.readouterr().err


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from videorl.errors import CheckpointError
    from videorl.measures.video_mae import VideoMAEFeatures

    place = tiny_video_mae(tmp_path / "mae")
    tensors = load_file(place / "model.safetensors")
    del tensors["fc_norm.weight"]
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights.*fc_norm\.weight"):
        VideoMAEFeatures(str(place), "cpu")
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[:-10])  # as of a download that was cut short
    with pytest.raises(CheckpointError, match="VideoMAE cannot be loaded"):
        VideoMAEFeatures(str(place), "cpu")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "num_frames": "sixteen"}))
    with pytest.raises(CheckpointError, match=r"VideoMAE cannot be loaded.*num_frames"):
        VideoMAEFeatures(str(place), "cpu")
    (place / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(CheckpointError, match="'vit'"):
        VideoMAEFeatures(str(place), "cpu")


@pytest.mark.parametrize(
    "other", [{"frames": 9}, {"size": (64, 48)}, {"fps": 12.0}], ids=["length", "size", "rate"]
)
def test_clips_of_another_shape(
    other: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, out = clips(tmp_path / "a"), clips(tmp_path / "b", **other), tmp_path / "out"
    assert run(a, b, "--out", out) == ExitCode.REFUSED
    assert "3 of 6 clips differ: b/0.mp4 has" in capsys.readouterr().err
    assert run(a, b, "--out", out, "--resample") == 0


def test_clips_that_the_other_has_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, out = clips(tmp_path / "a"), clips(tmp_path / "b", ("0", "1")), tmp_path / "out"
    assert run(a, b, "--out", out) == ExitCode.REFUSED
    assert "a has 1 clips that b has not" in capsys.readouterr().err
    assert run(a, b, "--out", out, "--shared") == 0
    assert [row["num_clips"] for row in results(out)["rows"]] == [2, 2]
    table = tmp_path / "prompts.csv"
    table.write_text("video,prompt\n0.mp4,a dog\n1.mp4,a cat\n2.mp4,a bird\n")
    assert run(b, "--out", out, "--prompts", table) == ExitCode.REFUSED
    assert "b: 1 clips of the prompts are missing: 2.mp4" in capsys.readouterr().err
    (a / "2.txt").unlink()
    table.write_text("video,prompt\n0.mp4,a dog\n1.mp4,a cat\n")
    assert run(a, "--out", out, "--prompts", table) == ExitCode.REFUSED
    assert "a: 1 clips are not among the prompts: 2.mp4" in capsys.readouterr().err
    assert run(a, "--out", out, "--prompts", table, "--shared") == 0
    assert results(out)["rows"][0]["num_clips"] == 2


def test_shared_prompts_weigh_the_same_in_every_folder(tmp_path: Path) -> None:
    names = ("0", "1", "2", "3", "6")  # 0, 3 and 6 are dogs
    a, b, out = clips(tmp_path / "a", names), clips(tmp_path / "b", ("7", "1", "3")), tmp_path / "o"
    (a / "6.txt").write_text(PROMPTS[0])
    (b / "3.txt").write_text(PROMPTS[0])  # of three dogs in a and two in b
    assert run(a, b, "--out", out, "--shared") == 0
    mine, theirs = results(out)["rows"]
    assert (mine["num_clips"], theirs["num_clips"]) == (3, 3)
    by_name = {path.stem: mean_of(path) for path in [*a.glob("*.mp4")]}
    dogs = (by_name["0"] + by_name["3"]) / 2  # 3 is in both
    expected = (dogs + by_name["1"]) / 2  # prompts weigh the same, not clips
    assert mine["numbers"]["temporal flickering"]["value"] == pytest.approx(expected, abs=1e-12)


def test_clips_without_a_number_are_counted(tmp_path: Path) -> None:
    a, out = clips(tmp_path / "a"), tmp_path / "out"
    (a / "1.mp4").write_bytes(b"damaged")
    assert run(a, "--out", out) == 1
    row = results(out)["rows"][0]
    assert (row["num_clips"], row["num_failed"]) == (3, 1)
    assert "a: 1 clips lack a number" in results(out)["notes"][0]


def test_without_numbers_of_the_base_nothing_is_compared_with_another(tmp_path: Path) -> None:
    base, out = clips(tmp_path / "base"), tmp_path / "out"
    for path in base.glob("*.mp4"):
        path.write_bytes(b"damaged")
    others = (clips(tmp_path / "b"), clips(tmp_path / "c", speed=2))
    assert run(base, *others, "--out", out) == 1
    _, b, c = (row["numbers"].get("temporal flickering") for row in results(out)["rows"])
    assert b["value"] > c["value"]
    assert b["difference"] is None and c["difference"] is None


def test_nan_of_a_measure_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from videorl.measures import measuring

    a, out = clips(tmp_path / "a"), tmp_path / "out"
    values = iter([0.5, float("nan"), 0.7])
    monkeypatch.setattr(measuring, "temporal_flickering", lambda _: next(values))
    assert run(a, "--out", out) == 1
    assert results(out)["rows"][0]["numbers"]["temporal flickering"]["value"] == pytest.approx(0.6)
    assert "NaN" in results(out)["notes"][0]


def test_results_of_vbench_make_totals(tmp_path: Path) -> None:
    from videorl.measures.vbench import QUALITY

    a, out, file = clips(tmp_path / "a"), tmp_path / "out", tmp_path / "a_eval_results.json"
    others = [name for name in QUALITY if name != "temporal flickering"]
    file.write_text(json.dumps({name.replace(" ", "_"): [0.8, []] for name in others}))
    metrics = [name.replace(" ", "_") for name in QUALITY]
    assert run(a, "--out", out, "--vbench", f"a={file}", "--metric", *metrics) == 0
    numbers = results(out)["rows"][0]["numbers"]
    assert "quality score" in numbers and "total score" not in numbers
    assert run(a, "--out", out, "--vbench", f"b={file}") == ExitCode.REFUSED
    scene = tmp_path / "scene_eval_results.json"  # the package writes a file per run
    scene.write_text('{"scene": [0.4, []]}')
    assert run(a, "--out", out, "--vbench", f"a={file}", f"a={scene}") == 0
    assert results(out)["rows"][0]["numbers"]["scene"]["value"] == 0.4
    assert run(a, "--out", out, "--vbench", f"a={file}", f"a={file}") == ExitCode.REFUSED


def test_pictures_and_tables_of_videos_are_measured_too(tmp_path: Path) -> None:
    from PIL import Image

    from videorl.data.video_io import read_video

    a, out = clips(tmp_path / "a", ("0",)), tmp_path / "out"
    pictures = tmp_path / "p" / "0"
    pictures.mkdir(parents=True)
    for number, frame in enumerate(read_video(a / "0.mp4").frames):
        Image.fromarray(frame).save(pictures / f"{number}.png")
    (pictures / "fps.txt").write_text("8")
    (tmp_path / "p" / "0.txt").write_text(PROMPTS[0])
    table = tmp_path / "t.parquet"
    row = {"video": (a / "0.mp4").read_bytes(), "prompt": PROMPTS[0]}
    pq.write_table(pa.Table.from_pylist([row]), table)
    assert run(a, f"pictures={tmp_path / 'p'}", f"table={table}", "--out", out) == 0
    rows = results(out)["rows"]
    values = [row["numbers"]["temporal flickering"]["value"] for row in rows]
    assert len(values) == 3 and values == pytest.approx([values[0]] * 3, abs=1e-12)
    assert rows[0]["numbers"]["temporal flickering"]["interval"] is None  # of one prompt


def test_a_device_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = clips(tmp_path / "a", ("0",))
    asked = ("--metric", "fvd", "--video-mae", tiny_video_mae(tmp_path / "mae"), "--reference", a)
    argv = (f"mine={a}", *asked, "--device", "banana", "--out", tmp_path / "out")
    assert run(*argv) == ExitCode.REFUSED
    assert "--device: banana cannot be used here" in capsys.readouterr().err


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    a = clips(tmp_path / "a", ("0",))
    for words in (
        ["--few-clips"],
        ["--frame-step", "2"],
        ["--reference", a],
        ["--tie", "1"],
        ["--tie", "-1", "--reward", "moving_shapes"],
        ["--metric", "fvd"],
        ["--metric", "fvd_i3d", "--reference", a],
        ["--i3d", a],
        ["--vbench-python", "python"],
    ):
        with pytest.raises(SystemExit, match="2"):
            run(a, *words)
    assert run(a, a) == ExitCode.REFUSED  # two of one name


def scores(path: Path, totals: dict[str, float], model: str = "moving_shapes") -> Path:
    rows = [
        {"video": f"{name}.mp4", "prompt": PROMPTS[int(name) % 3], "total": total}
        | {"VQ": -total, "raw": "{}", "error": None}
        for name, total in totals.items()
    ]
    table = pa.Table.from_pylist(rows)
    note = json.dumps([{"name": model}])
    pq.write_table(table.replace_schema_metadata({"videorl.rewards": note}), path)
    return path


def test_win_rates_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("0", "1", "2", "3")  # 0 and 3 have one prompt
    a, b = clips(tmp_path / "a", names), clips(tmp_path / "b", names, speed=2)
    mine = scores(tmp_path / "a.parquet", {"0": 0.0, "1": 0.0, "2": 1.0, "3": 0.0})
    theirs = scores(tmp_path / "b.parquet", {"0": 1.0, "1": 0.05, "2": 0.0, "3": -1.0})
    asked = (a, b, "--out", tmp_path / "out", "--scores", f"a={mine}", f"b={theirs}")
    assert run(*asked, "--tie", "0.1") == 0
    found = {rate["dimension"]: rate for rate in results(tmp_path / "out")["win_rates"]}
    # By prompt: dog a win and a loss, cat a tie, bird a loss; a prompt weighs the same.
    total = found["total"]
    assert total["wins"] == pytest.approx(1 / 6)
    assert total["ties"] == pytest.approx(1 / 3)
    assert total["losses"] == pytest.approx(1 / 2)
    assert total["rate"]["mean"] == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    assert (total["num_prompts"], total["num_pairs"], total["num_skipped"]) == (3, 4, 0)
    assert found["VQ"]["wins"] == pytest.approx(total["losses"])
    assert run(*asked) == 0
    again = results(tmp_path / "out")["win_rates"]
    assert next(r for r in again if r["dimension"] == "total")["ties"] == 0
    other = scores(tmp_path / "c.parquet", {"0": 1.0}, "video_reward")
    assert run(*asked[:-1], f"b={other}") == ExitCode.REFUSED
    assert "win rates need scores of a" in capsys.readouterr().err


def test_without_shared_names_all_pairs_of_a_prompt_count(tmp_path: Path) -> None:
    a, b = clips(tmp_path / "a", ("0", "3")), clips(tmp_path / "b", ("6", "9"))
    for folder in (a, b):
        for text in folder.glob("*.txt"):
            text.write_text("a dog")
    mine = scores(tmp_path / "a.parquet", {"0": 0.0, "3": 2.0})
    theirs = scores(tmp_path / "b.parquet", {"6": 1.0, "9": 3.0})
    asked = (a, b, "--out", tmp_path / "out", "--scores", f"a={mine}", f"b={theirs}")
    assert run(*asked) == 0
    total = results(tmp_path / "out")["win_rates"][-1]
    assert (total["wins"], total["num_pairs"], total["num_prompts"]) == (0.75, 4, 1)


def test_threads_change_nothing(tmp_path: Path) -> None:
    names = tuple(map(str, range(7)))
    a, b = clips(tmp_path / "a", names), clips(tmp_path / "b", names, speed=2)
    (b / "3.mp4").write_bytes(b"damaged")
    assert run(a, b, "--out", tmp_path / "one") == 1
    assert run(a, b, "--out", tmp_path / "four", "--workers", 4) == 1
    one, four = (results(tmp_path / name) for name in ("one", "four"))
    assert one["rows"] == four["rows"] and one["notes"] == four["notes"]


def test_people_are_joined_in(tmp_path: Path) -> None:
    from videorl.judging.answers import Answers
    from videorl.judging.study import Answer, Side, Study, StudyPair, write_study

    a, b = clips(tmp_path / "slow"), clips(tmp_path / "fast", speed=4)
    sides = [Side(str(folder / "0.mp4"), folder.name) for folder in (a, b)]
    study, place = Study("overall", 0, 1, (StudyPair("1", PROMPTS[0], *sides),)), tmp_path / "study"
    place.mkdir()
    write_study(place, study)
    with Answers(place, study) as answers:
        answers.add(Answer("1", "me", {"Overall": "A"}, True, "A", 1.0, 1.0))
    assert run(a, b, "--out", tmp_path / "out", "--answers", place) == 0
    (row,) = results(tmp_path / "out")["agreement"]
    assert (row["measure"], row["question"]) == ("temporal flickering", "Overall")
    assert row["accuracy"]["without_ties"] == 1.0  # slow is the steadier
    assert "Agreement with people" in (tmp_path / "out" / "measured.html").read_text()


def test_vbench_networks_that_are_absent_are_named(tmp_path: Path) -> None:
    a, out = clips(tmp_path / "a"), tmp_path / "out"
    asked = ("--metric", "temporal_flickering", "subject_consistency")
    assert run(a, *asked, "--vbench-model", f"dino={tmp_path / 'none'}", "--out", out) == 1
    assert "subject consistency is not measured" in results(out)["notes"][0]
    assert "temporal flickering" in results(out)["rows"][0]["numbers"]
    assert run(a, *asked, "--vbench-model", "resnet=x", "--out", out) == ExitCode.REFUSED
