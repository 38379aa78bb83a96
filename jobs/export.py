"""`videorl export`: write the aligned LoRA of a run in the layout of another program.

    videorl export runs/moving_shapes --format comfyui
    videorl export runs/moving_shapes --format kohya --out style.safetensors
    videorl export someones_lora.safetensors --format diffusers

comfyui = the layer names of the authors' own code, as ComfyUI and trainers for it have them (Wan,
LTX-Video, HunyuanVideo); kohya = those of musubi-tuner, which ComfyUI opens too (Wan); diffusers =
what a run has in `aligned/` already. Of Wan 2.2 A14B there are two files, NAME_high_noise and
NAME_low_noise, for its two models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import command, places
from jobs.results import add_json, results
from videorl.errors import CheckpointError, ConfigError, RunFolderError
from videorl.policies.adapter_names import FORMATS

if TYPE_CHECKING:
    from videorl.policies.adapter_layouts import LayerAdapter


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file and print what it holds."""
    parser = command.new_parser("videorl export", __doc__)
    text = "the folder or URI of a run, or an adapter: a file or folder in any layout that is read"
    parser.add_argument("source", type=places.place, metavar="RUN_OR_ADAPTER", help=text)
    parser.add_argument("--format", required=True, choices=FORMATS, help="the layout to write")
    text = "the file; an older one is replaced (default: NAME.FORMAT.safetensors, here)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)
    add_json(parser)
    options = parser.parse_args(argv)
    adapter, name = _find(places.here(options.source).absolute())
    out = options.out or Path(f"{name}.{options.format}.safetensors")
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out must end in .safetensors, got {out}")

    from videorl.policies.adapter_files import by_noise
    from videorl.policies.adapter_write import write_adapter

    files = {
        out.with_stem("_".join(filter(None, (out.stem, noise)))): file
        for noise, file in by_noise(adapter).items()
    }
    for file in files:
        command.output_file(file)
    with results(options) as show:
        written = [
            _facts(file, write_adapter(source, file, options.format))
            for file, source in files.items()
        ]
        show(written, "\n".join(map(_line, written)))
    return 0


def _facts(out: Path, layers: Mapping[str, LayerAdapter]) -> dict[str, Any]:
    return {
        "file": str(out),
        "layers": len(layers),
        "ranks": sorted({layer.rank for layer in layers.values()}),
        "alphas": sorted({layer.scale * layer.rank for layer in layers.values()}),
    }


def _line(facts: Mapping[str, Any]) -> str:
    ranks = ", ".join(map(str, facts["ranks"]))
    alphas = ", ".join(f"{alpha:g}" for alpha in facts["alphas"])
    return f"{facts['file']}: {facts['layers']} layers, rank {ranks}, alpha {alphas}"


def _find(source: Path) -> tuple[Path, str]:
    """Return where the adapter is, and what a file of it may be called.

    Raises:
        ConfigError: There is nothing of this name.
        RunFolderError: The run has exported nothing.
        CheckpointError: The run trained all weights.
    """
    from videorl.run.folder import RunFolder

    run = RunFolder(source.parent if source.name == "aligned" else source)
    if source.is_file():
        return source, source.stem
    if not source.is_dir():
        raise ConfigError(
            f"there is no run or adapter {source}: give the folder of a run, or the file or folder "
            "of a LoRA"
        )
    if run.config.is_file() and not run.export.is_dir():
        raise RunFolderError(
            f"{run.root} has no {run.export.name}/: runs that align a policy write it at their "
            "end, and the same `videorl train` command goes on with one that was stopped"
        )
    folder = run.export if run.export.is_dir() else source
    if (folder / "transformer").is_dir():
        raise CheckpointError(
            f"{folder} holds all weights of a transformer (policy.lora.rank=0), not a LoRA: "
            "only a LoRA can be exported; diffusers opens this folder's transformer as it is"
        )
    return folder, run.root.name


if __name__ == "__main__":
    raise SystemExit(command.run(main))
