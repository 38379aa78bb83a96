r"""`videorl serve`: a policy and reward models behind HTTP, on Ray Serve.

    videorl serve runs/moving_shapes --reward moving_shapes
    videorl serve moving_shapes --adapter first=runs/a --adapter second=runs/b --port 8080
    curl http://127.0.0.1:8000/v1/videos/sync -H "Authorization: Bearer TOKEN" \
        -F prompt="a large red circle moving left" -o video.mp4

Clients of vLLM-Omni's and SGLang's `/v1/videos` work with it, and the `openai` package's
`client.videos`. docs/serving.md has the fields. Stop it with Ctrl-C.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command, places
from videorl.errors import ConfigError

if TYPE_CHECKING:
    from actors.serving.ingress import Site
    from videorl.config import Recipe, RewardConfig
    from videorl.serving.limits import ServingLimits
    from videorl.serving.policy import Served

TOKEN = "VIDEORL_TOKEN"
_LIMITS = {
    "max_queued": (64, "requests that wait for videos, and for each reward; more get 429"),
    "max_upload_mib": (64.0, "size of an uploaded video"),
    "upload_s": (60.0, "seconds in which the body of a request must have come"),
    "decode_s": (30.0, "seconds in which an uploaded video must be decoded"),
    "decoded_mib": (1024.0, "size of an uploaded video once it is decoded"),
    "work_s": (3600.0, "seconds that a replica may take for its work, before it is replaced"),
    "max_pixels": (2**29, "frames × height × width of a sampled video"),
    "max_steps": (200, "steps of a sampled video"),
    "keep_s": (86400.0, "seconds for which results stay on disk"),
    "keep_mib": (10240.0, "size of all results, beyond which the oldest are deleted"),
}
"""The fields of `ServingLimits`, which a test compares."""


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("videorl serve", __doc__)
    text = "the folder of a run, or the name or path of a recipe, whose base is served then"
    parser.add_argument("model", metavar="RUN|MODEL", help=text)
    text = "one more aligned policy on the same base; may be repeated"
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=RUN", help=text)
    command.add_models(parser, "--reward")
    text = "folder or URI of a trained latent reward, which requests may guide by"
    parser.add_argument("--latent-reward", type=places.place, help=text)
    command.add_option(parser, "--host", "127.0.0.1", "address to listen on")
    command.add_option(parser, "--port", 8000, "port to listen on")
    text = f"answer without a token; by default {TOKEN} is the token, or a new one is printed"
    parser.add_argument("--no-token", action="store_true", help=text)
    command.add_option(parser, "--out", Path("runs/served"), "folder of results")
    command.add_option(parser, "--min-replicas", 1, "replicas of the policy at the least")
    command.add_option(parser, "--max-replicas", 1, "replicas of the policy, and of each reward")
    text = "videos of one size that are sampled together; with 1 each equals `videorl sample`'s"
    command.add_option(parser, "--batch-size", 1, text)
    for name, (default, text) in _LIMITS.items():
        command.add_option(parser, f"--{name.replace('_', '-')}", default, text)
    command.add_address(parser)
    text = "settings of the recipe to change; comes last"
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes."""
    options = _parser().parse_args(argv)
    command.start_logging()
    token, was_given = _token(options), TOKEN in os.environ
    os.environ.pop(TOKEN, None)  # Ray's processes, whose environment others show, need none
    if options.latent_reward:
        options.latent_reward = places.here(options.latent_reward)
    served, name = _served(options)
    rewards = _rewards(options)
    site = _site(options, served, name, rewards, token)

    from actors.cluster import connect
    from actors.serving.start import Address, check_address, serving
    from videorl.run.lock import hold
    from videorl.run.stopping import stop_on_signal

    address = Address(options.host, options.port)
    check_address(address)  # before anything is started
    num_cpus = served.recipe.generators.num_cpus + sum(reward.num_cpus for reward in rewards)
    with (
        hold(site.results),
        connect(options.address, num_cpus=num_cpus),
        stop_on_signal() as should_stop,
        serving(served, rewards, site, address, options.min_replicas),
    ):
        print(f"serving {name} at {address.url}", flush=True)
        if token is not None and not was_given:
            print(f"token: {token}", flush=True)
        while not should_stop():
            time.sleep(0.2)
    return 0


def _token(options: argparse.Namespace) -> str | None:
    """Return the token, None = without."""
    if not options.no_token:
        given = os.environ.get(TOKEN)
        if given is not None and not re.fullmatch(r"[\x21-\x7e]{8,}", given):
            raise ConfigError(
                f"{TOKEN} must be 8 or more characters without spaces, got {len(given)}; unset it "
                "to have a token made and printed"
            )
        return given or secrets.token_urlsafe(32)
    try:
        is_loopback = options.host == "localhost" or ipaddress.ip_address(options.host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError(
            f"--no-token is for a loopback address alone, got --host {options.host}: whoever "
            "reaches it could use it"
        )
    return None


def _served(options: argparse.Namespace) -> tuple[Served, str]:
    """Return what replicas load, and the name of the model."""
    from videorl.files.pins import pin_settings
    from videorl.policies import takes_images
    from videorl.recipes.reading import load_recipe
    from videorl.run.compute_type import as_in_run_of
    from videorl.run.folder import RunFolder
    from videorl.run.pins import policy_settings
    from videorl.serving.policy import Served, digest_of_adapter

    model = places.here(places.place(options.model))
    run = RunFolder(model.absolute())
    is_run = run.config.exists()
    source = str(run.config) if is_run else options.model
    recipe = as_in_run_of(load_recipe(source, options.set), [source])
    if takes_images(recipe.policy.family):
        raise ConfigError(
            f"policy.family={recipe.policy.family} makes videos of pictures: serve takes models "
            "that make them of texts alone; `videorl sample --image` is for the others"
        )
    pin_settings(policy_settings(recipe), {})
    adapters = _adapters(options.adapter, recipe)
    if is_run:
        if recipe.name in adapters:
            raise ConfigError(
                f"--adapter {recipe.name} has the name of the run itself: choose another"
            )
        adapters = {recipe.name: _aligned(run.root, recipe), **adapters}
    digests = {key: digest_of_adapter(folder) for key, folder in adapters.items()}
    latent = "" if options.latent_reward is None else str(options.latent_reward.absolute())
    if recipe.policy.lora.initial is not None and not is_run:
        name = "initial"
        if name in adapters:
            raise ConfigError(
                "--adapter initial has the name of the recipe's own adapter "
                f"(policy.lora.initial={recipe.policy.lora.initial}): choose another"
            )
        adapters = {name: recipe.policy.lora.initial, **adapters}
    lora = replace(recipe.policy.lora, initial=None)
    recipe = replace(recipe, policy=replace(recipe.policy, lora=lora))
    return Served(recipe, adapters, digests, latent), recipe.name


def _adapters(given: Sequence[str], recipe: Recipe) -> dict[str, str]:
    """Return name -> folder of the adapters of `--adapter`."""
    from videorl.serving.requests import BASE

    found: dict[str, str] = {}
    for text in given:
        name, _, run = text.partition("=")
        if not run or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise ConfigError(
                f"--adapter must be NAME=RUN with a name of letters, digits and ._-, got {text!r}"
            )
        if name in found or name == BASE:
            whose = "the model without adapters" if name == BASE else f"{found[name]} too"
            raise ConfigError(f"--adapter {name} is the name of {whose}: choose another")
        found[name] = _aligned(places.here(places.place(run)).absolute(), recipe)
    return found


def _aligned(run: Path, served: Recipe) -> str:
    """Return the folder of a run's adapter, which must be for the model that is served."""
    from videorl.policies.adapter_files import FILES
    from videorl.recipes.policy_problems import TWO_EXPERTS
    from videorl.recipes.reading import load_recipe
    from videorl.run.folder import RunFolder

    folder = RunFolder(run)
    if not folder.config.exists():
        raise ConfigError(f"{run} is no run folder: it has no config.yaml")
    found, wanted = load_recipe(str(folder.config)).policy, served.policy
    if wanted.family in TWO_EXPERTS or wanted.lora.rank == 0 or found.lora.rank == 0:
        raise ConfigError(
            f"{run}: serve takes adapters of models with one transformer alone; of others, or "
            "where all weights were trained, put the weights into the pipeline of policy.path and "
            "serve that"
        )
    both = {
        "policy.family": (found.family, wanted.family),
        "policy.path": (found.path, wanted.path),
        "policy.lora.rank": (found.lora.rank, wanted.lora.rank),
        "policy.lora.target_modules": (found.lora.target_modules, wanted.lora.target_modules),
    }
    if other := [f"{key}={a} instead of {b}" for key, (a, b) in both.items() if a != b]:
        raise ConfigError(
            f"{run} was aligned on another model than that which is served: {'; '.join(other)}"
        )
    if not (folder.export / FILES["transformer"]).exists():
        raise ConfigError(
            f"{folder.export} has no {FILES['transformer']}: the run has not ended, or its export "
            "was moved; `videorl train` with the same recipe goes on with it"
        )
    return str(folder.export)


def _rewards(options: argparse.Namespace) -> list[RewardConfig]:
    from videorl.recipes.reading import load_rewards

    if not options.reward:
        return []
    return [command.located(reward) for reward in load_rewards(options.reward, None)]


def _site(
    options: argparse.Namespace,
    served: Served,
    name: str,
    rewards: Sequence[RewardConfig],
    token: str | None,
) -> Site:
    from actors.serving.ingress import Site
    from videorl.guidance.config import read_config
    from videorl.serving.guards import digest_of
    from videorl.serving.requests import BASE, Offer
    from videorl.serving.work import Replicas
    from videorl.settings.bounds import at_least

    most = max(options.max_replicas, options.min_replicas)
    for flag in ("min_replicas", "max_replicas", "batch_size"):
        if problem := at_least(f"--{flag.replace('_', '-')}", getattr(options, flag), 1):
            raise ConfigError(problem)
    dimensions = read_config(options.latent_reward).dimensions if options.latent_reward else ()
    offer = Offer(
        name,
        served.recipe.sampling,
        (*served.adapters, BASE),
        tuple(dimensions),
        tuple(reward.key for reward in rewards),
    )
    out = command.lasting(options.out)
    is_new = not out.exists()
    command.output_folder(out)
    if is_new:
        out.chmod(0o700)  # prompts and videos are for those who have the token
    replicas = Replicas(most, options.batch_size, most)
    digest = None if token is None else digest_of(token)
    return Site(offer, out, _limits(options), replicas, digest)


def _limits(options: argparse.Namespace) -> ServingLimits:
    from videorl.serving.limits import ServingLimits, check_limits

    limits = ServingLimits(**{name: getattr(options, name) for name in _LIMITS})
    check_limits(limits)
    return limits


if __name__ == "__main__":
    raise SystemExit(command.run(main))
