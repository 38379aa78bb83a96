"""`videorl export`: write the aligned LoRA of a run in the layout of another program.

    videorl export runs/moving_shapes --format comfyui
    videorl export runs/moving_shapes --format kohya --out style.safetensors
    videorl export someones_lora.safetensors --format diffusers
    videorl export runs/moving_shapes --step 40 --out step_40

comfyui = the layer names of the authors' own code, as ComfyUI and trainers for it have them (Wan,
LTX-Video, HunyuanVideo); kohya = those of musubi-tuner, which ComfyUI opens too (Wan); diffusers =
what a run has in `aligned/` already. With --step it is the weights of a checkpoint that the run has
kept; without --format too, they become a folder such as `aligned/`. Of Wan 2.2 A14B there are two
files, NAME_high_noise and NAME_low_noise, for its two models.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
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
    text = "the layout to write; needed, but for --step"
    parser.add_argument("--format", choices=FORMATS, help=text)
    text = "a step of the run whose checkpoint is kept (default: its last one)"
    parser.add_argument("--step", type=int, metavar="N", help=text)
    text = "the file; an older one is replaced (default: NAME.FORMAT.safetensors, here); "
    text += "with --step alone a folder (default: NAME-step-N, here)"
    parser.add_argument("--out", type=Path, metavar="FILE", help=text)
    add_json(parser)
    options = parser.parse_args(argv)
    if options.step is not None:
        return _of_step(options)
    if options.format is None:
        raise ConfigError(f"--format is needed: one of {', '.join(FORMATS)}")
    return _write(*_find(places.here(options.source).absolute()), options)


def _of_step(options: argparse.Namespace) -> int:
    """Write the weights of a kept checkpoint."""
    root, step = places.here(options.source).absolute(), options.step
    if not (root / "config.yaml").is_file():
        raise ConfigError(f"--step is of a run, and {root} is no run folder")
    name = f"{root.name}-step-{step}"

    from videorl.run.kept_policy import export_kept

    if options.format is None:
        out = options.out or Path(name)
        command.output_folder(out)
        export_kept(root, step, out)
        with results(options) as show:
            show({"folder": str(out), "step": step}, f"{out}: the weights of step {step}")
        return 0
    with TemporaryDirectory() as folder:
        export_kept(root, step, Path(folder))
        return _write(_of_lora(Path(folder)), name, options)


def _write(adapter: Path, name: str, options: argparse.Namespace) -> int:
    """Write an adapter in the layout that was asked for."""
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
    return _of_lora(folder), run.root.name


def _of_lora(folder: Path) -> Path:
    """Return a folder that holds an adapter.

    Raises:
        CheckpointError: It holds all weights.
    """
    if (folder / "transformer").is_dir():
        raise CheckpointError(
            f"{folder} holds all weights of a transformer (policy.lora.rank=0), not a LoRA: "
            "only a LoRA can be exported; diffusers opens this folder's transformer as it is"
        )
    return folder


if __name__ == "__main__":
    raise SystemExit(command.run(main))
