"""How fast video files are read, against decord, the decoder of the reward models' authors.

    pip install decord
    python -m jobs.bench.decode
    python -m jobs.bench.decode --seconds 10 60 --sampled 16 --json decode.json

Clips of test patterns are made first (H.264 as x264's preset `fast` makes it). Both decoders read
every frame, and then some evenly spread ones, on one thread; they take turns, and the shortest
processor time of each counts, opening included, which other load on the machine hardly changes.
Pixels are compared: a ratio is only printed where both are the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from jobs import command
from jobs.bench.measuring import add_json, write_json
from videorl.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIZES = {"480p": (480, 854), "720p": (720, 1280), "1080p": (1080, 1920)}
"""Height and width."""
RATE = 24
_FRAMES_AT_ONCE = 32

Way: TypeAlias = "Callable[[Path, list[int]], Iterator[npt.NDArray[np.uint8]]]"
"""Reads frames of a file, some at once."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Processor seconds to open a clip and read some frames of it."""

    size: str
    seconds: int
    """Length of the clip."""
    frames: int
    """How many were read."""
    ours_s: float
    decord_s: float

    @property
    def speed(self) -> float:
        """Our speed as a multiple of decord's."""
        return self.decord_s / self.ours_s


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.decode", __doc__)
    command.add_option(parser, "--sizes", list(SIZES), "sizes of the clips", choices=list(SIZES))
    command.add_option(parser, "--seconds", [5], "lengths of the clips")
    command.add_option(parser, "--sampled", 16, "evenly spread frames that are read as well")
    command.add_option(parser, "--repeats", 3, "times each is read; the fastest counts")
    add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every size, and print one line for each."""
    options = _parser().parse_args(argv)
    found: list[Measured] = []
    print(f"{'clip':>12} {'frames':>7} {'ours s':>8} {'decord s':>9} {'speed':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            for seconds in options.seconds:
                path = make_clip(Path(folder, f"{size}-{seconds}.mp4"), *SIZES[size], seconds)
                for at in measure(path, size, seconds, options.sampled, options.repeats):
                    found.append(at)
                    print(
                        f"{size:>6} {seconds:>3} s {at.frames:>7} {at.ours_s:>8.3f} "
                        f"{at.decord_s:>9.3f} {at.speed:>6.2f}×",
                        flush=True,
                    )
    write_json(options.json, [asdict(at) | {"speed": at.speed} for at in found])
    return 0


def make_clip(path: Path, height: int, width: int, seconds: int) -> Path:
    """Write a clip of a moving pattern with some noise."""
    import av
    import numpy as np

    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    pattern_HW3 = small.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    noise_HW3 = generator.integers(0, 12, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "fast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for place in range(seconds * RATE):
            moved = np.roll(pattern_HW3, 3 * place, axis=1) // 2
            moved += np.roll(noise_HW3, 101 * place, axis=0)
            frame = av.VideoFrame.from_ndarray(moved, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def measure(path: Path, size: str, seconds: int, sampled: int, repeats: int) -> list[Measured]:
    """Read all frames of a clip, and some of them, both ways.

    Raises:
        ConfigError: decord is not installed, or shows other pixels.
    """
    import numpy as np

    count = seconds * RATE
    some = np.linspace(0, count - 1, min(sampled, count)).round().astype(int).tolist()
    found: list[Measured] = []
    for wanted in (list(range(count)), some):
        for ours, theirs in zip(_ours(path, wanted), _by_decord(path, wanted), strict=True):
            if not np.array_equal(ours, theirs):
                raise ConfigError(f"decord shows other frames of a {size} clip: nothing to compare")
        ours_s, decord_s = _shortest((_ours, _by_decord), path, wanted, repeats)
        found.append(Measured(size, seconds, len(wanted), ours_s, decord_s))
    return found


def _shortest(ways: Sequence[Way], path: Path, wanted: list[int], repeats: int) -> list[float]:
    """Return the shortest processor time of each way; they take turns."""
    times = [float("inf")] * len(ways)
    for _ in range(repeats):
        for place, way in enumerate(ways):
            start = time.process_time()
            for _frames in way(path, wanted):
                pass
            times[place] = min(time.process_time() - start, times[place])
    return times


def _ours(path: Path, wanted: list[int]) -> Iterator[npt.NDArray[np.uint8]]:
    from videorl.rewards.videos import open_video

    video = open_video(path)
    for first in range(0, len(wanted), _FRAMES_AT_ONCE):
        yield video.read(wanted[first : first + _FRAMES_AT_ONCE])


def _by_decord(path: Path, wanted: list[int]) -> Iterator[npt.NDArray[np.uint8]]:
    import av  # noqa: F401, first: both bring libraries of the same names

    try:
        import decord
    except ImportError as error:
        raise ConfigError("decord is not installed: pip install decord") from error
    reader = decord.VideoReader(str(path), num_threads=1)
    for first in range(0, len(wanted), _FRAMES_AT_ONCE):
        yield reader.get_batch(wanted[first : first + _FRAMES_AT_ONCE]).asnumpy()


if __name__ == "__main__":
    raise SystemExit(command.run(main))
