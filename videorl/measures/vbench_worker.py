"""The `vbench` package's own code on frames: a program for an environment of its own.

    PYTHON -I vbench_worker.py DIMENSION WEIGHTS [DEVICE]

It is started by `videorl.measures.vbench_package` with a Python that has `vbench` 0.1.5; nothing of
ours is imported, and no weights are downloaded. It speaks JSON, a line at a time:

- first it says `{"ready": {"vbench": "0.1.5", ...}}`, or `{"error": "..."}` and ends with 1;
- it reads `{"frames": "FILE.npy", "fps": 8.0}`: RGB uint8 [F, H, W, 3], and answers with
  `{"value": 0.97}` or `{"error": "..."}`, with `"is_broken": true` where no later clip can have a
  number of this process;
- it ends when its input is closed, also in the middle of a clip.

What the package prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import select
import sys
from collections.abc import Callable
from importlib import import_module
from threading import Thread
from typing import Any

_CLIP = "clip.mp4"
"""A name that the package would open; its loaders are replaced by what returns the frames."""


def motion_smoothness(weights: str, device: str) -> Callable[[Any, float], float]:
    """Return what measures a clip by AMT-S, which puts a frame in the place of every second.

    The number is (255 − the mean difference of those frames to the clip's) / 255.
    """
    module: Any = import_module("vbench.motion_smoothness")
    config = ("third_party", "amt", "cfgs", "AMT-S.yaml")
    place = os.path.join(os.path.dirname(module.__file__), *config)
    found = module.MotionSmoothness(place, weights, device)

    def measure(frames_FHW3: Any, _: float) -> float:
        found.fp.get_frames = lambda _: list(frames_FHW3)
        return float(found.motion_score(_CLIP))

    return measure


def dynamic_degree(weights: str, device: str) -> Callable[[Any, float], float]:
    """Return what says by RAFT whether enough frames, at about 8 a second, move far: 1 or 0."""
    import torch

    module: Any = import_module("vbench.dynamic_degree")
    options = {"model": weights, "small": False, "mixed_precision": False, "alternate_corr": False}
    found = module.DynamicDegree(module.edict(options), device)
    decide = found.check_move

    def checked(lengths: list[float]) -> bool:
        # NaN is never above the limit: the package counts such a clip among those that stand still.
        if not all(map(math.isfinite, lengths)):
            raise ValueError("RAFT's flow has no length; it needs sides of 121 pixels or more")
        return bool(decide(lengths))

    found.check_move = checked

    def measure(frames_FHW3: Any, fps: float) -> float:
        used = found.extract_frame(list(frames_FHW3), max(1, round(fps / 8)))
        tensors = [torch.from_numpy(frame).permute(2, 0, 1).float()[None] for frame in used]
        found.get_frames = lambda _: [tensor.to(device) for tensor in tensors]
        return float(found.infer(_CLIP))

    return measure


def imaging_quality(weights: str, device: str) -> Callable[[Any, float], float]:
    """Return what measures a hundredth of MUSIQ's score, the mean over frames."""
    import torch

    module: Any = import_module("vbench.imaging_quality")
    model = module.MUSIQ(pretrained_model_path=weights)
    model.to(device)
    model.training = False  # as the package does; MUSIQ has no dropout

    def measure(frames_FHW3: Any, _: float) -> float:
        module.load_video = lambda _: torch.Tensor(frames_FHW3).permute(0, 3, 1, 2)
        with torch.no_grad():
            _, results = module.technical_quality(model, [_CLIP], device)
        return float(results[0]["video_results"]) / 100.0

    return measure


LOADERS = {
    "motion_smoothness": motion_smoothness,
    "dynamic_degree": dynamic_degree,
    "imaging_quality": imaging_quality,
}
"""Dimension -> what loads its network and returns what measures a clip."""
PACKAGES = ("vbench", "torch", "torchvision", "pyiqa")
BROKEN = ("CUDA error", "cuDNN error", "CUBLAS_STATUS")
"""What errors say after which a GPU is of no more use to the process; too little memory is none."""


def main(
    loaders: dict[str, Callable[[str, str], Callable[[Any, float], float]]] = LOADERS,
) -> int:
    """Serve a dimension until standard input ends."""
    dimension, weights, device = [*sys.argv[1:], ""][:3]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    Thread(target=_end_with_input, daemon=True).start()
    try:
        place = _usable(device)
    except ImportError as error:
        say({"error": f"{type(error).__name__}: {error}"})
        return 1
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        say({"error": f"the device {device or 'cuda'} cannot be used there ({why}); try cpu"})
        return 1
    try:
        measure = loaders[dimension](weights, place)
    except Exception as error:
        say({"error": _why_not_loaded(error, weights)})
        return 1
    say({"ready": versions()})
    for line in sys.stdin:
        try:
            say({"value": measure(*_read(line))})
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            say({"error": text, "is_broken": any(said in text for said in BROKEN)})
    return 0


def _end_with_input() -> None:
    """End this process when whoever asks is gone, so that none that hangs is left behind."""
    poll = select.poll()
    poll.register(0, 0)  # that the other end is closed is told unasked
    poll.poll()
    os._exit(1)


def versions() -> dict[str, str]:
    """Return the versions of `PACKAGES` that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _usable(device: str) -> str:
    """Return `cuda` or `cpu`: the package knows no other spelling, so a GPU of many is chosen."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if kind == "cuda":
        torch.cuda.set_device(int(number or 0))
    torch.zeros(1, device=kind)
    return kind


def _read(line: str) -> Any:
    import numpy as np

    request = json.loads(line)
    return np.load(request["frames"]), float(request["fps"])


def _why_not_loaded(error: Exception, weights: str) -> str:
    if isinstance(error, pickle.UnpicklingError):
        lines = str(error).splitlines() or ["no reason is given"]
        why = next((line for line in lines if "WeightsUnpickler error" in line), lines[0])
        return (
            f"{weights} cannot be read as tensors alone ({why.strip()}): it is damaged, or holds "
            "more, which PyTorch 2.6 and later do not read unasked; if you trust the file, set "
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1, by which code in it is run"
        )
    text = f"{type(error).__name__}: {error}"
    return text if isinstance(error, ImportError) else f"{weights} cannot be loaded: {text}"


if __name__ == "__main__":
    sys.exit(main())
