"""Make a folder that `policy.path` takes of the published files of Open-Sora 1.2.

    python -m jobs.workshop.assemble_open_sora --out open_sora_1_2

Network and VAE are published each by itself, and without T5 or a pipeline. Weights are copied as
they are; the folder takes 25 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs import command

FILES = {
    "transformer": ["config.json", "model.safetensors"],
    "vae": ["config.json", "model.safetensors"],
    "texts": [
        "vae/config.json",
        "tokenizer/*",
        "text_encoder/*.json",
        "text_encoder/*.safetensors",
    ],
}
"""What is read of each repository."""


def main(argv: Sequence[str] | None = None) -> int:
    """Find or download the files, and put them together."""
    parser = command.new_parser("python -m jobs.workshop.assemble_open_sora", __doc__)
    text = "the folder; is created"
    parser.add_argument("--out", type=Path, required=True, help=text)
    text = "folder or hub id of the network"
    command.add_option(parser, "--transformer", "hpcai-tech/OpenSora-STDiT-v3", text)
    command.add_option(parser, "--vae", "hpcai-tech/OpenSora-VAE-v1.2", "of both stages of the VAE")
    text = "of T5, its tokenizer and the image VAE's configuration"
    command.add_option(parser, "--texts", "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers", text)
    options = parser.parse_args(argv)
    command.output_folder(options.out)
    folders = {name: _located(getattr(options, name), name) for name in FILES}

    from videorl.open_sora.published import assemble

    assemble(**folders, out=options.out)
    print(f"wrote {options.out}")
    return 0


def _located(given: str, option: str) -> Path:
    """Return the folder of a path or hub id.

    Raises:
        CheckpointError: It is neither.
    """
    from videorl.errors import CheckpointError
    from videorl.files import hub

    folder = hub.local_path(given)
    if folder.is_dir():
        return folder
    if (name := hub.parse(given)) is None or name.file:
        raise CheckpointError(f"--{option}: {given} is neither a folder nor a hub id")
    return hub.download(name, FILES[option], f"--{option}")


if __name__ == "__main__":
    raise SystemExit(command.run(main))
