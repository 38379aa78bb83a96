"""The inputs of VideoScore: the sampled frames of a video, as tokens and pixels.

Text and sampling are from github.com/TIGER-AI-Lab/VideoScore at 8e449734 (MIT licence),
`examples/run_videoscore.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videorl.errors import CheckpointError, PromptError
from videorl.rewards.checkpoints import read_json, read_tokenizer
from videorl.rewards.videos import OpenVideo, check_prompts

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import Idefics2ImageProcessorPil

IMAGE_TOKEN = "<image>"
BOUNDARY_TOKEN = "<fake_token_around_image>"

TEMPLATE = (
    "\n"
    "Suppose you are an expert in judging and evaluating the quality of AI-generated videos,\n"
    "please watch the following frames of a given video and see the text prompt for generating "
    "the video,\n"
    "then give scores from 5 different dimensions:\n"
    "(1) visual quality: the quality of the video in terms of clearness, resolution, brightness, "
    "and color\n"
    "(2) temporal consistency, both the consistency of objects or humans and the smoothness of "
    "motion or movements\n"
    "(3) dynamic degree, the degree of dynamic changes\n"
    "(4) text-to-video alignment, the alignment between the text prompt and the video content\n"
    "(5) factual consistency, the consistency of the video content with the common-sense and "
    "factual knowledge\n"
    "\n"
    "for each dimension, output a float number from 1.0 to 4.0,\n"
    "the higher the number is, the better the video performs in that sub-score, \n"
    "the lowest 1.0 means Bad, the highest 4.0 means Perfect/Real (the video is like a real "
    "video)\n"
    "Here is an output example:\n"
    "visual quality: 3.2\n"
    "temporal consistency: 2.7\n"
    "dynamic degree: 4.0\n"
    "text-to-video alignment: 2.3\n"
    "factual consistency: 1.8\n"
    "\n"
    'For this video, the text prompt is "{text_prompt}",\n'
    "all the frames of video are as follows:\n"
)


@dataclass(frozen=True, slots=True)
class ClipInputs:
    """A video and its prompt, ready for the network."""

    token_ids: list[int]
    """The whole text, with an image token for each latent of each frame."""
    pixels_FCHW: Tensor
    """Normalised frames in float32, resized."""


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Makes inputs of videos and prompts, with a checkpoint's tokenizer and image settings."""

    tokenizer: Tokenizer
    images: Idefics2ImageProcessorPil
    num_latents: int
    """Number of image tokens per frame."""
    max_tokens: int
    """Number of positions of the language model."""
    max_num_frames: int

    @property
    def reserved(self) -> tuple[str, ...]:
        """Return the special tokens, which are refused in prompts."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return tuple(token.content for token in added if token.special)

    def __call__(self, video: OpenVideo, prompt: str) -> ClipInputs:
        """Prepare a video.

        Raises:
            VideoError: Its frames cannot be decoded.
            PromptError: The prompt is empty, too long, or contains a special token.
        """
        check_prompts([prompt], self.reserved)
        indices = sample_indices(video.num_frames, self.max_num_frames)
        token_ids = self.tokens(prompt, len(indices))
        if len(token_ids) > self.max_tokens:
            raise PromptError(
                f"prompt of {len(prompt)} characters is too long: with {len(indices)} frames it "
                f"makes {len(token_ids)} tokens, the model has room for {self.max_tokens}: "
                f"{prompt[:80]!r}"
            )
        return ClipInputs(token_ids, self.pixels(video.read(indices)))

    def tokens(self, prompt: str, num_frames: int) -> list[int]:
        """Return the token ids of the whole text, frames included."""
        # Idefics2's own expansion of `<image> `, once per frame.
        frame = f"{BOUNDARY_TOKEN}{IMAGE_TOKEN * self.num_latents}{BOUNDARY_TOKEN} "
        return self.tokenizer.encode(TEMPLATE.format(text_prompt=prompt) + frame * num_frames).ids

    def pixels(self, frames_FHW3: npt.NDArray[np.uint8]) -> Tensor:
        """Return frames as the vision tower takes them, in float32 [F, 3, H, W]."""
        from PIL import Image

        # As pictures, not as arrays: an array of three rows would be taken for three channels.
        pictures = [Image.fromarray(frame_HW3) for frame_HW3 in frames_FHW3]
        process: Any = self.images
        made = process([pictures], return_tensors="pt")
        return made["pixel_values"][0].to(torch.float32)


def sample_indices(num_frames: int, max_num_frames: int) -> list[int]:
    """Return the indices of the frames to look at: all, or about `max_num_frames` evenly spread.

    The step is a 64-bit float, so that some limits (7, but not 16 or 48) may give one frame more or
    less, as in the authors' code.
    """
    if num_frames <= max_num_frames:
        return list(range(num_frames))
    indices = np.arange(0, num_frames, num_frames / max_num_frames).astype(int)
    return np.unique(indices[indices < num_frames]).tolist()


def read_preprocessor(folder: Path, config: Any, max_num_frames: int) -> Preprocessor:
    """Read the tokenizer and the image settings of a checkpoint.

    `tokenizer.json` is read as it is: transformers 5 would replace its normaliser by that of
    `LlamaTokenizer`.

    Raises:
        CheckpointError: A file is missing, damaged, or not of a VideoScore.
    """
    tokenizer, path = read_tokenizer(folder), folder / "tokenizer.json"
    if tokenizer.token_to_id(BOUNDARY_TOKEN) is None:
        raise CheckpointError(f"{path} does not know the token {BOUNDARY_TOKEN!r}")
    if (image_id := tokenizer.token_to_id(IMAGE_TOKEN)) != config.image_token_id:
        raise CheckpointError(
            f"{path} gives {IMAGE_TOKEN!r} the id {image_id}, config.json says "
            f"{config.image_token_id}"
        )
    return Preprocessor(
        tokenizer,
        _image_processor(folder),
        config.perceiver_config.resampler_n_latents,
        config.text_config.max_position_embeddings,
        max_num_frames,
    )


def _image_processor(folder: Path) -> Idefics2ImageProcessorPil:
    # Named explicitly: the automatic choice is the torchvision one, which resizes differently.
    from transformers import Idefics2ImageProcessorPil

    path = folder / "preprocessor_config.json"
    if read_json(path).get("do_image_splitting", False):
        raise CheckpointError(f"{path}: do_image_splitting is true, only false is supported")
    try:
        return Idefics2ImageProcessorPil.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} has no usable image settings: {error}") from error
