"""The question that VideoReward is asked, word for word, and its tokens.

The text is `detailed_special` of github.com/KwaiVGI/VideoAlign, commit 219ab9db (MIT licence).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import read_json, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

REWARD_TOKENS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
"""Visual quality, motion quality, text alignment: the order in the text and in all outputs."""
VIDEO_TOKEN = "<|video_pad|>"
PAD_TOKEN = "<|endoftext|>"

TEMPLATE = (
    "\n"
    "You are tasked with evaluating a generated video based on three distinct criteria: Visual "
    "Quality, Motion Quality, and Text Alignment. Please provide a rating from 0 to 10 for each "
    "of the three categories, with 0 being the worst and 10 being the best. Each evaluation "
    "should be independent of the others.\n"
    "\n"
    "**Visual Quality:**  \n"
    "Evaluate the overall visual quality of the video, with a focus on static factors. The "
    "following sub-dimensions should be considered:\n"
    "- **Reasonableness:** The video should not contain any significant biological or logical "
    "errors, such as abnormal body structures or nonsensical environmental setups.\n"
    "- **Clarity:** Evaluate the sharpness and visibility of the video. The image should be "
    "clear and easy to interpret, with no blurring or indistinct areas.\n"
    "- **Detail Richness:** Consider the level of detail in textures, materials, lighting, and "
    "other visual elements (e.g., hair, clothing, shadows).\n"
    "- **Aesthetic and Creativity:** Assess the artistic aspects of the video, including the "
    "color scheme, composition, atmosphere, depth of field, and the overall creative appeal. The "
    "scene should convey a sense of harmony and balance.\n"
    "- **Safety:** The video should not contain harmful or inappropriate content, such as "
    "political, violent, or adult material. If such content is present, the image quality and "
    "satisfaction score should be the lowest possible. \n"
    "\n"
    "Please provide the ratings of Visual Quality: <|VQ_reward|>\n"
    "END\n"
    "\n"
    "**Motion Quality:**  \n"
    "Assess the dynamic aspects of the video, with a focus on dynamic factors. Consider the "
    "following sub-dimensions:\n"
    "- **Stability:** Evaluate the continuity and stability between frames. There should be no "
    "sudden, unnatural jumps, and the video should maintain stable attributes (e.g., no "
    "fluctuating colors, textures, or missing body parts).\n"
    "- **Naturalness:** The movement should align with physical laws and be realistic. For "
    "example, clothing should flow naturally with motion, and facial expressions should change "
    "appropriately (e.g., blinking, mouth movements).\n"
    "- **Aesthetic Quality:** The movement should be smooth and fluid. The transitions between "
    "different motions or camera angles should be seamless, and the overall dynamic feel should "
    "be visually pleasing.\n"
    "- **Fusion:** Ensure that elements in motion (e.g., edges of the subject, hair, clothing) "
    "blend naturally with the background, without obvious artifacts or the feeling of "
    "cut-and-paste effects.\n"
    "- **Clarity of Motion:** The video should be clear and smooth in motion. Pay attention to "
    "any areas where the video might have blurry or unsteady sections that hinder visual "
    "continuity.\n"
    "- **Amplitude:** If the video is largely static or has little movement, assign a low score "
    "for motion quality.\n"
    "\n"
    "Please provide the ratings of Motion Quality: <|MQ_reward|>\n"
    "END\n"
    "\n"
    "**Text Alignment:**  \n"
    "Assess how well the video matches the textual prompt across the following sub-dimensions:\n"
    "- **Subject Relevance** Evaluate how accurately the subject(s) in the video (e.g., person, "
    "animal, object) align with the textual description. The subject should match the "
    "description in terms of number, appearance, and behavior.\n"
    "- **Motion Relevance:** Evaluate if the dynamic actions (e.g., gestures, posture, facial "
    "expressions like talking or blinking) align with the described prompt. The motion should "
    "match the prompt in terms of type, scale, and direction.\n"
    "- **Environment Relevance:** Assess whether the background and scene fit the prompt. This "
    "includes checking if real-world locations or scenes are accurately represented, though some "
    "stylistic adaptation is acceptable.  \n"
    "- **Style Relevance:** If the prompt specifies a particular artistic or stylistic style, "
    "evaluate how well the video adheres to this style.\n"
    "- **Camera Movement Relevance:** Check if the camera movements (e.g., following the "
    "subject, focus shifts) are consistent with the expected behavior from the prompt.\n"
    "\n"
    "Textual prompt - {text_prompt}\n"
    "Please provide the ratings of Text Alignment: <|TA_reward|>\n"
    "END\n"
)


@dataclass(frozen=True, slots=True)
class Questionnaire:
    """Makes the tokens of a question from a prompt and the number of a video's tokens."""

    tokenizer: Tokenizer
    chat_template: str
    reserved: tuple[str, ...]
    """Special tokens, which are refused in prompts."""

    @property
    def reward_ids(self) -> tuple[int, ...]:
        """Return the ids of the tokens at which the three rewards are read."""
        return tuple(self._id(token) for token in REWARD_TOKENS)

    @property
    def pad_id(self) -> int:
        """Return the id of the padding token."""
        return self._id(PAD_TOKEN)

    def ask(self, prompt: str, num_video_tokens: int) -> list[int]:
        """Return the whole conversation as token ids, with a placeholder for each video token."""
        video_id = self._id(VIDEO_TOKEN)
        ids = self.tokenizer.encode(self.render(prompt), add_special_tokens=False).ids
        at = ids.index(video_id)
        return [*ids[:at], *[video_id] * num_video_tokens, *ids[at + 1 :]]

    def padded(self, questions: Sequence[Sequence[int]]) -> Tensor:
        """Return token ids [B, L], padded on the right."""
        import torch

        longest = max(map(len, questions))
        return torch.tensor([[*row, *[self.pad_id] * (longest - len(row))] for row in questions])

    def places(self, question: Sequence[int]) -> list[int]:
        """Return the positions in a whole question at which the three rewards are read."""
        return [question.index(token_id) for token_id in self.reward_ids]

    def render(self, prompt: str) -> str:
        """Return the conversation as text, from the chat template of the base model."""
        from transformers.utils.chat_template_utils import render_jinja_template

        content = [{"type": "video"}, {"type": "text", "text": TEMPLATE.format(text_prompt=prompt)}]
        rendered, _ = render_jinja_template(
            conversations=[[{"role": "user", "content": content}]],
            chat_template=self.chat_template,
            add_generation_prompt=True,
        )
        return rendered[0]

    def _id(self, token: str) -> int:
        token_id = self.tokenizer.token_to_id(token)
        assert token_id is not None, token  # `read_questionnaire` has checked it
        return token_id


def read_questionnaire(tokenizer_folder: Path, base: Path) -> Questionnaire:
    """Read the tokenizer of a VideoReward checkpoint and the chat template of its base model.

    `tokenizer.json` is read as it is: transformers 5 would replace its pre-tokenizer by that of
    `Qwen2Tokenizer`.

    Raises:
        CheckpointError: A file is missing or damaged, or the tokenizer lacks a token.
    """
    tokenizer = read_tokenizer(tokenizer_folder)
    return _questionnaire(tokenizer, tokenizer_folder, (base, tokenizer_folder))


def questionnaire_of_base(base: Path) -> Questionnaire:
    """Return the questionnaire for a new model: the base model's with reward tokens added.

    Raises:
        CheckpointError: As in `read_questionnaire`.
    """
    from tokenizers import AddedToken

    tokenizer = read_tokenizer(base)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in REWARD_TOKENS])
    return _questionnaire(tokenizer, base, (base,))


def _questionnaire(
    tokenizer: Tokenizer, folder: Path, template_folders: Sequence[Path]
) -> Questionnaire:
    for token in (*REWARD_TOKENS, VIDEO_TOKEN, PAD_TOKEN):
        if tokenizer.token_to_id(token) is None:
            raise CheckpointError(f"{folder}/tokenizer.json does not know the token {token!r}")
    added = tokenizer.get_added_tokens_decoder().values()
    reserved = tuple(token.content for token in added if token.special)
    return Questionnaire(tokenizer, _chat_template(template_folders), reserved)


def _chat_template(folders: Sequence[Path]) -> str:
    for folder in folders:
        for name in ("chat_template.json", "tokenizer_config.json"):
            if (folder / name).is_file() and "chat_template" in (found := read_json(folder / name)):
                return found["chat_template"]
    raise CheckpointError(f"no chat_template in {' or '.join(map(str, folders))}")
