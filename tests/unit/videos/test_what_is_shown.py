"""Frames, times and rate are those that players show, of every kind of file, however asked for."""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.video_files import ByDecord, cut_copy, decoded, make_video, patched, turned
from videorl.data.video_io import read_video
from videorl.errors import VideoError
from videorl.rewards.videos import OpenVideo, open_video
from videorl.types import Video

ROOT = Path(__file__).resolve().parents[3]
INPUTS = Path(os.environ.get("VIDEORL_FIXTURES", ROOT.parent / "shared/fixtures"), "inputs")
SHORT_GOP = {"x264-params": "keyint=12:scenecut=0"}
KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264 without B-frames.mp4": {"options": {"bf": "0"}},
    "h264 of short groups.mp4": {"options": SHORT_GOP},
    "h264 of open groups.mp4": {"options": {"x264-params": "open-gop=1:keyint=10:bframes=3"}},
    "h264 without key frames.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=10"}},
    "h264 in fields.ts": {"options": {"x264-params": "interlaced=1:tff=1"}},
    "h264 without edit list.mp4": {"container_options": {"use_editlist": "0"}},
    "h264 in fragments.mp4": {
        "options": SHORT_GOP,
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "h264.mkv": {"options": SHORT_GOP},
    "h264.mov": {},
    "h264.ts": {"options": SHORT_GOP},
    "h264 with 10 bits.mp4": {"pixels": "yuv420p10le"},
    "h264 with odd sides.mkv": {"pixels": "yuv444p", "size": (47, 63)},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=10:log-level=none"}},
    "av1.mp4": {"codec": "libsvtav1", "size": (64, 64), "options": {"preset": "12"}},
    "vp8 with hidden frames.webm": {
        "codec": "libvpx",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "arnr-maxframes": "5"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "vp9.ivf": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "mpeg4 with B-frames.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "wmv.wmv": {"codec": "wmv2"},
    "flv.flv": {"codec": "flv"},
    "gif.gif": {"codec": "gif", "pixels": "rgb8", "rate": 25},
}


def whole(video: OpenVideo) -> np.ndarray:
    return video.read(range(video.num_frames))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_shows_what_players_show(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, 40, **KINDS[name])
    rate = KINDS[name].get("rate", 24)
    video = open_video(path)
    assert (video.num_frames, video.fps) == (40, pytest.approx(rate, rel=1e-3))
    np.testing.assert_allclose(video.timestamps(), np.arange(40) / rate, atol=1.1e-3)
    frames = whole(video)
    np.testing.assert_array_equal(frames, decoded(path))
    by_chance = np.random.default_rng(0).integers(0, 40, 12)
    for asked in (by_chance, by_chance[::-1], [39, 39, 0], [20], [5], [39], range(40)):
        np.testing.assert_array_equal(video.read(list(asked)), frames[list(asked)])
        np.testing.assert_array_equal(open_video(path).read(list(asked)), frames[list(asked)])


@pytest.mark.parametrize("start_s", [0.3, 1.6, 2.71])
def test_frames_before_a_cut_are_not_shown(start_s: float, tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", 96, options=SHORT_GOP | {"bf": "3"})
    cut = cut_copy(source, tmp_path / "cut.mp4", start_s)
    left = 96 - int(np.ceil(start_s * 24))
    assert ByDecord(cut).count > left, "decord counts the hidden ones"
    video = open_video(cut)
    assert (video.num_frames, video.fps) == (left, 24)
    np.testing.assert_allclose(video.timestamps(), np.arange(left) / 24, atol=1e-4)
    shown = decoded(source)[-left:]
    np.testing.assert_array_equal(whole(video), shown)
    for index in reversed(range(left)):
        np.testing.assert_array_equal(video.read([index])[0], shown[index])
    np.testing.assert_array_equal(read_video(cut).frames, whole(video))


@pytest.mark.skipif(not (INPUTS / "cut_copy.mp4").exists(), reason="no inputs in VIDEORL_FIXTURES")
def test_inputs_that_people_have() -> None:
    cut = whole(open_video(INPUTS / "cut_copy.mp4"))
    assert cut.shape == (74, 192, 320, 3)
    source = decoded(INPUTS / "cut_source.mp4")
    np.testing.assert_array_equal(cut, source[75:149])
    assert open_video(INPUTS / "av1.mp4").num_frames == 9
    with pytest.raises(VideoError, match=r"audio_only\.mp4: has no video stream"):
        open_video(INPUTS / "audio_only.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_uneven_times_are_kept_and_the_rate_is_their_mean(suffix: str, tmp_path: Path) -> None:
    places = np.array([0, 1, 2, 5, 9, 14, 20, 21, 22, 30])
    late = make_video(tmp_path / f"vfr{suffix}", 10, ticks=[*(24_000 + places * 1000)])
    video = open_video(late)
    np.testing.assert_allclose(video.timestamps(), places / 24, atol=1e-3)
    assert 6 < video.fps < 8  # 9 steps in 1.25 s; mp4 says how long the last frame stays
    np.testing.assert_array_equal(whole(video), decoded(late))


def test_a_turned_video_is_upright_as_in_the_authors_code(tmp_path: Path) -> None:
    path = turned(make_video(tmp_path / "turned.mp4", size=(180, 320)))
    video = open_video(path)
    assert whole(video).shape == (24, 320, 180, 3)
    np.testing.assert_array_equal(whole(video), ByDecord(path).frames())


@pytest.mark.parametrize("count", [8, 40])
@pytest.mark.parametrize("options", [{}, {"bf": "3"}, {"crf": "40"}, {"colorspace": "bt709"}])
def test_pixels_are_those_of_the_authors_decoder(
    options: dict[str, str], count: int, tmp_path: Path
) -> None:
    path = make_video(tmp_path / "clip.mp4", count, rate=Fraction(30000, 1001), options=options)
    video, theirs = open_video(path), ByDecord(path)
    assert (video.num_frames, video.fps) == (theirs.count, theirs.fps)
    np.testing.assert_array_equal(whole(video), theirs.frames())
    np.testing.assert_array_equal(video.timestamps(), theirs.times_s())


@pytest.mark.parametrize(
    ("box", "offset", "content"),
    [
        (b"mdhd", 16, struct.pack(">I", 0)),
        (b"mdhd", 16, struct.pack(">I", 2**31)),
        (b"mvhd", 16, struct.pack(">I", 1)),
        (b"tkhd", 20, struct.pack(">I", 2**31)),
    ],
)
def test_durations_in_headers_do_not_matter(
    box: bytes, offset: int, content: bytes, tmp_path: Path
) -> None:
    path = make_video(tmp_path / "lying.mp4")
    patched(path, box, offset, content)
    video = open_video(path)
    assert (video.num_frames, video.fps) == (24, pytest.approx(24))
    np.testing.assert_array_equal(whole(video), decoded(path))


def test_a_rate_in_a_header_that_the_frames_do_not_keep_is_not_believed(tmp_path: Path) -> None:
    path = make_video(tmp_path / "slow.mkv", rate=24, ticks=[4000 * n for n in range(24)])
    assert open_video(path).fps == pytest.approx(6, rel=0.01)


def test_a_name_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_video(tmp_path / "clip.mkv")
    for name in ("clip.mp4", "clip.avi", "clip", "clip.txt", "http:clip", "clip.jpg", "take:1.mp4"):
        (tmp_path / name).write_bytes(made.read_bytes())
        monkeypatch.chdir(tmp_path)
        assert whole(open_video(name)).shape == (24, 48, 64, 3)


def test_a_single_frame_is_a_video_but_no_motion(tmp_path: Path) -> None:
    path = make_video(tmp_path / "one.mp4", 1)
    video = read_video(path)
    assert (video.frames.shape, video.fps) == ((1, 48, 64, 3), 24)
    with pytest.raises(VideoError, match=r"one\.mp4: holds 1 frame"):
        open_video(path)
    assert open_video(Video(np.repeat(video.frames, 2, axis=0), 24)).num_frames == 2
