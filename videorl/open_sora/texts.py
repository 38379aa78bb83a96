"""The texts that Open-Sora 1.2 was trained with: scores appended, then cleaned twice."""

from __future__ import annotations

from typing import Any


def with_scores(
    prompt: str, aesthetic: float | None, motion: float | None, camera: str | None = None
) -> str:
    """Append the scores that are given, unless the prompt has them already."""
    parts = {
        "aesthetic score": None if aesthetic is None else f"{aesthetic:.1f}",
        "motion score": None if motion is None else f"{motion:.1f}",
        "camera motion": camera,
    }
    for name, value in parts.items():
        if value is not None and f"{name}:" not in prompt:
            prompt = f"{prompt} {name}: {value}."
    return prompt


def cleaned(text: str) -> str:
    """Return the text that goes to the tokenizer: cleaned twice, as published."""
    from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import PixArtSigmaPipeline

    # The routine of DeepFloyd's captions, which is a method but looks only at a constant of its
    # class.
    stock: Any = PixArtSigmaPipeline
    return stock._clean_caption(stock, stock._clean_caption(stock, text))
