"""What TensorBoard shows, read through both of its readers."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image, ImageSequence

from tests.tracked import fixed_videos
from videorl.trackers.tensorboard import TensorBoardTracker


def scalars(directory: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    found = [
        (one.step, one.value) for one in EventAccumulator(str(directory)).Reload().Scalars(tag)
    ]
    served = plugin_reader(directory).Tensors(tag)
    assert [(one.step, make_ndarray(one.tensor_proto)) for one in served] == found
    return found


def plugin_reader(directory: Path):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    return EventAccumulator(str(directory)).Reload()


def later_tracker(directory: Path) -> TensorBoardTracker:
    """Return a tracker whose file is read after all others: names have seconds, then .9 and .10."""
    begun = int(time.time())
    while int(time.time()) == begun:
        time.sleep(0.01)
    return TensorBoardTracker(directory)


def test_it_hides_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    first = TensorBoardTracker(tmp_path)
    for step in range(4):
        first.metrics(step, {"reward/total": step / 2})
    first.close()
    resumed = later_tracker(tmp_path)
    resumed.truncate(2)
    resumed.metrics(2, {"reward/total": 5.0})
    assert scalars(tmp_path, "reward/total") == [(0, 0.0), (1, 0.5), (2, 5.0)]
    resumed.close()


def test_fixed_prompts_are_moving_pictures_with_their_prompt(tmp_path: Path) -> None:
    from tensorboard.util.tensor_util import make_ndarray

    tracker = TensorBoardTracker(tmp_path / "events")
    for step in (0, 50):
        tracker.videos(step, fixed_videos(tmp_path, step))
    tracker.close()
    reader = plugin_reader(tmp_path / "events")
    shown = reader.Tensors("fixed_prompts/001")
    assert [one.step for one in shown] == [0, 50]
    width, height, content = make_ndarray(shown[0].tensor_proto)
    assert (int(width), int(height)) == (64, 32)
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.format, picture.size) == ("GIF", (64, 32))
        assert len(list(ImageSequence.Iterator(picture))) == 4
        picture.seek(0)
        assert picture.info["duration"] == 120  # of 125 ms: GIF counts hundredths of seconds
    metadata = reader.SummaryMetadata("fixed_prompts/001")
    assert metadata.plugin_data.plugin_name == "images"
    assert metadata.summary_description == "prompt 1 (seed 8)"
    assert "fixed_prompts/002" not in reader.Tags()["tensors"], "it was lost"
    assert scalars(tmp_path / "events", "fixed_prompts/total") == [(0, 0.25), (50, 0.25)]


def test_it_needs_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from videorl.trackers.tensorboard import TensorBoardTracker\n"
        "assert 'tensorboard' not in sys.modules\n"
        f"TensorBoardTracker(Path({str(tmp_path)!r})).metrics(0, {{'x': 1.0}})\n"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
