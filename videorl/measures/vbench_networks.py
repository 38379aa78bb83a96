"""VBench's dimensions on networks that transformers has: subject, background, aesthetic quality.

Formulas and preprocessing are those of `vbench` 0.1.5 (arXiv 2311.17982, section 3.1). The weights
are those that it loads, in the layout of transformers: DINO ViT-B/16 and CLIP by OpenAI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videorl.errors import CheckpointError, VideoError
from videorl.files.content import content_of
from videorl.measures.loading import LOADING, check_loaded, side_of
from videorl.measures.shapes import View
from videorl.measures.store import Values
from videorl.measures.vbench import DIMENSIONS, weights_folder
from videorl.measures.vbench_pixels import clip_pixels, dino_pixels
from videorl.measures.video_mae import usable_device

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]
DINO, CLIP_B, CLIP_L = (
    "facebook/dino-vitb16",
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-large-patch14",
)
_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
_PICTURE_HALF = ("vision_model.", "visual_projection.")
_NOT_USED = "vision_model.embeddings.position_ids"
_DINO_EPSILON = 1e-6
_PIXELS = "pixels not rounded"
"""Tells numbers from those that were stored when they were rounded."""


@dataclass(frozen=True)
class Network:
    """A network that turns pictures into features."""

    features: Callable[[Tensor], Tensor]
    """Pixels [B, 3, H, W] -> features [B, D], not normalised."""
    pixels: Callable[[Pixels], Tensor]
    """Frames [F, H, W, 3] -> what the network reads."""
    digest: str
    place: str
    """Where it was loaded from."""
    size: int
    """D."""


class Similarity:
    """Mean likeness of each frame to the one before it and to the first.

    Of frame i > 0: (max(0, cos(fᵢ, fᵢ₋₁)) + max(0, cos(fᵢ, f₀))) / 2, the mean of which is the
    clip's. With DINO it is subject consistency, with CLIP B/32 background consistency.
    """

    def __init__(self, name: str, network: Network) -> None:
        self.name, self._network = name, network
        self.settings = f"{network.digest} {_PIXELS}"
        self.computed_by = f"videorl, on {network.place}"

    def of(self, view: View) -> Values:
        """See `videorl.measures.measuring.Measure.of`."""
        first = before = None
        likeness: list[float] = []
        for features in _unit_features(self._network, view):
            for feature in features:
                if first is None or before is None:
                    first = feature
                else:
                    pair = (max(float(feature @ other), 0.0) for other in (before, first))
                    likeness.append(sum(pair) / 2.0)
                before = feature
        if not likeness:
            raise VideoError(f"{self.name} needs two frames or more")
        return np.array([np.mean(likeness)])


class Aesthetic:
    """A tenth of the LAION aesthetic predictor (version 1), the mean over frames."""

    name = "aesthetic quality"

    def __init__(self, network: Network, head: Callable[[Tensor], Tensor], digest: str) -> None:
        self._network, self._head = network, head
        self.settings = f"{network.digest} {digest} {_PIXELS}"
        self.computed_by = f"videorl, on {network.place}"

    def of(self, view: View) -> Values:
        """See `videorl.measures.measuring.Measure.of`."""
        found = [self._head(features) for features in _unit_features(self._network, view)]
        if not found:
            raise VideoError("aesthetic quality needs a frame")
        scores = np.concatenate([scores.squeeze(-1).cpu().numpy() for scores in found])
        return np.array([scores.mean(dtype=np.float64) / 10.0])


def _unit_features(network: Network, view: View) -> Iterator[Tensor]:
    import torch
    from torch.nn import functional as F

    with torch.no_grad():
        for frames in view.parts():
            yield F.normalize(network.features(network.pixels(frames)).float(), dim=-1)


NETWORKS: Mapping[str, Callable[[Mapping[str, str], str], Similarity | Aesthetic]] = {
    "subject consistency": lambda places, device: Similarity(
        "subject consistency", load_dino(places.get("dino", DINO), device)
    ),
    "background consistency": lambda places, device: Similarity(
        "background consistency", load_clip(places.get("clip_b", CLIP_B), device)
    ),
    "aesthetic quality": lambda places, device: load_aesthetic(
        places.get("clip_l", CLIP_L), places.get("aesthetic_head", ""), device
    ),
}
"""Dimension -> how it is loaded."""
PLACES = ("dino", "clip_b", "clip_l", "aesthetic_head")
"""What `--vbench-model` names."""


def load_dimension(name: str, places: Mapping[str, str], device: str) -> Similarity | Aesthetic:
    """Load a dimension of `NETWORKS`.

    Args:
        name: The dimension.
        places: Of `PLACES`, those that are not the default.
        device: Such as `cuda`; empty = a GPU if there is one.

    Raises:
        CheckpointError: Weights are missing; the error says where they are expected.
    """
    return NETWORKS[name](places, device)


def load_dino(place: str, device: str = "") -> Network:
    """Load DINO ViT-B/16, whose feature is the class token behind the last norm.

    Where transformers computes otherwise than DINO's own code, which VBench runs, it is made to do
    as that: position embeddings of clips that are not square, and what norms add to variances.
    """
    from torch import nn
    from transformers import ViTModel

    folder = _folder(place)
    network = _pretrained(ViTModel, folder, add_pooling_layer=False)
    where = _device(device)
    network.requires_grad_(False).eval().to(where)
    side = side_of(network.config, folder)
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = _DINO_EPSILON
    embeddings = network.embeddings
    embeddings.interpolate_pos_encoding = partial(_dino_positions, embeddings)

    def features(pixels: Tensor) -> Tensor:
        found: Any = network(pixel_values=pixels.to(where), interpolate_pos_encoding=True)
        return found.last_hidden_state[:, 0]

    digest, size = content_of(folder).digest, int(network.config.hidden_size)
    return Network(features, lambda frames: dino_pixels(frames, side), digest, place, size)


def _dino_positions(embeddings: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """Return position embeddings [1, 1 + patches, D] of a picture, as DINO's own code makes them.

    They are resized by factors that belong to a tenth of a patch more than there are, a guard
    against rounding, so that each is taken of a place a little nearer to the first.
    """
    from torch import cat
    from torch.nn.functional import interpolate

    known = embeddings.position_embeddings
    count = known.shape[1] - 1
    if tokens.shape[1] - 1 == count and height == width:
        return known
    side = round(count**0.5)
    rows, columns = (size // int(embeddings.patch_size) for size in (height, width))
    factors = (rows + 0.1) / side, (columns + 0.1) / side
    squares = known[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    found = interpolate(squares, scale_factor=factors, mode="bicubic")
    return cat([known[:, :1], found.flatten(2).transpose(1, 2)], dim=1)


def load_clip(place: str, device: str = "") -> Network:
    """Load the picture half of an OpenAI CLIP."""
    from transformers import CLIPConfig, CLIPVisionModelWithProjection

    folder = _folder(place)
    whole = _config(CLIPConfig, folder)
    config = whole.vision_config
    config.projection_dim = whole.projection_dim
    side = side_of(config, folder)
    try:
        with _empty():
            network = CLIPVisionModelWithProjection(config)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{folder}: its config.json cannot be used: {error}") from error
    where = _filled(
        network,
        folder,
        lambda name: name.startswith(_PICTURE_HALF) and name != _NOT_USED,
        device,
    )

    def features(pixels: Tensor) -> Tensor:
        found: Any = network(pixel_values=pixels.to(where))
        return found.image_embeds

    digest, size = content_of(folder).digest, int(config.projection_dim)
    return Network(features, lambda frames: clip_pixels(frames, side), digest, place, size)


def load_aesthetic(place: str, head: str = "", device: str = "") -> Aesthetic:
    """Load CLIP L/14 and the linear head, by default from VBench's folder of weights."""
    import torch
    from torch import nn

    from videorl.rewards.checkpoints import load_strictly, read_tensors

    default = weights_folder() / DIMENSIONS["aesthetic quality"].weights_file
    file = Path(head).expanduser() if head else default
    if not file.is_file():
        raise CheckpointError(
            f"{file} is not there: the LAION head sa_0_4_vit_l_14_linear.pth, which its authors "
            "publish on GitHub; --vbench-model aesthetic_head=FILE says where it lies"
        )
    network = load_clip(place, device)
    linear = nn.Linear(network.size, 1)
    try:
        load_strictly(linear, read_tensors(file), source=file, dtype=torch.float32)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. The head must fit the {network.size} features of the CLIP in {place}: the "
            "published one belongs to CLIP L/14, which has 768"
        ) from error
    linear.requires_grad_(False).to(_device(device))
    return Aesthetic(network, linear, content_of(file).digest)


def _folder(place: str) -> Path:
    from videorl.rewards.checkpoints import find_folder

    return find_folder(place, _FILES)


def _pretrained(kind: Any, folder: Path, **options: Any) -> Any:
    """Load a network by transformers, which knows older names of its weights."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        network, report = kind.from_pretrained(folder, **LOADING, **options)
    except (
        OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError
    ) as error:  # fmt: skip
        raise CheckpointError(f"{folder}: {kind.__name__} cannot be loaded: {error}") from error
    check_loaded(report, folder, kind.__name__)
    return network


def _config(kind: Any, folder: Path) -> Any:
    from huggingface_hub.errors import StrictDataclassError

    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise CheckpointError(f"{folder}: its config.json cannot be used: {error}") from error


def _empty() -> Any:
    from videorl.rewards.checkpoints import empty_parameters

    return empty_parameters()


def _device(device: str) -> Any:
    import torch

    return torch.device(usable_device(device))


def _filled(network: Any, folder: Path, is_used: Callable[[str], bool], device: str) -> Any:
    """Fill a network with exactly its own weights; return where it computes."""
    import torch

    from videorl.rewards.checkpoints import load_strictly, read_tensors

    stored = {name: tensor for name, tensor in read_tensors(folder).items() if is_used(name)}
    load_strictly(network, stored, source=folder, dtype=torch.float32)
    network.requires_grad_(False).eval().to(_device(device))
    return _device(device)
