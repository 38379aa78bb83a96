"""Damaged, cut and hostile files are refused with their name; nothing is made up for them."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.video_files import make_video
from videorl.data.video_io import read_video
from videorl.errors import VideoError
from videorl.rewards.videos import open_video


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"])
def test_a_cut_file_is_refused(suffix: str, kept: float, tmp_path: Path) -> None:
    codec = {".webm": "libvpx", ".avi": "mpeg4", ".gif": "gif"}.get(suffix, "libx264")
    pixels = "rgb8" if suffix == ".gif" else "yuv420p"
    path = make_video(tmp_path / f"cut{suffix}", codec=codec, pixels=pixels)
    assert open_video(path).num_frames == 24
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(VideoError, match=r"cut\..*damaged or truncated"):
        open_video(path)


@pytest.mark.parametrize("kind", ["matroska", "webm"])
def test_a_live_recording_without_a_length_is_read(kind: str, tmp_path: Path) -> None:
    codec = "libvpx" if kind == "webm" else "libx264"
    path = tmp_path / f"live.{kind}"
    make_video(path, codec=codec, kind=kind, container_options={"live": "1"})
    assert open_video(path).num_frames == 24


def test_damage_shows_where_it_is_and_is_never_repaired(tmp_path: Path) -> None:
    path = make_video(tmp_path / "bad.mp4", 60, options={"x264-params": "keyint=20:scenecut=0"})
    with av.open(str(path)) as container:
        last = [packet for packet in container.demux(video=0) if packet.is_keyframe][-1]
    assert last.pos is not None
    content = bytearray(path.read_bytes())
    content[last.pos + 8 : last.pos + last.size] = b"\xa5" * (last.size - 8)
    path.write_bytes(content)
    video = open_video(path)
    assert video.read([0, 25]).shape[0] == 2
    for wanted in ([59], range(60)):
        with pytest.raises(VideoError, match=r"bad\.mp4: cannot be decoded"):
            open_video(path).read(wanted)


def test_playlists_and_texts_are_no_videos(tmp_path: Path) -> None:
    """FFmpeg would follow playlists to other files and addresses, and draw texts as pictures."""
    make_video(tmp_path / "secret.ts")
    texts = {
        "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "join.mp4": "ffconcat version 1.0\nfile secret.ts\n",
        "art.ans": "a text\n" * 50,
        "notes.txt": "a text\n" * 50,
        "empty.mp4": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(VideoError, match=f"{name}: cannot be decoded, it is no video"):
            open_video(tmp_path / name)


def test_sound_with_a_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), "fltp", "mono")
        silence.sample_rate = 44100
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        for packet in (*cover.encode(picture), *cover.encode(), *sound.encode(silence)):
            container.mux(packet)
        container.mux(sound.encode())
    with pytest.raises(VideoError, match=r"song\.mp4: has no video stream \(its streams: audio"):
        open_video(path)


def test_frames_that_are_not_there_are_named(tmp_path: Path) -> None:
    video = open_video(make_video(tmp_path / "clip.mp4"))
    for asked in ([24], [-1], [3, 30]):
        with pytest.raises(VideoError, match=r"clip\.mp4: frames .* there are frames 0 to 23"):
            video.read(asked)
    with pytest.raises(VideoError, match="no frame was asked for"):
        video.read([])


def test_a_size_that_changes_is_named(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{n}.ts", size=(48, 64 + 16 * n)) for n in range(2)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError, match=r"both\.ts: "):
        read_video(path)


def test_special_files_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match=r"pipe\.mp4: neither a file nor a folder"):
        open_video(tmp_path / "pipe.mp4")
