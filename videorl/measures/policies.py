"""Policies that are compared: a recipe's own, runs at steps, adapters, other checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videorl.config import Recipe
from videorl.errors import CheckpointError, ConfigError
from videorl.files import write_json
from videorl.files.content import content_of
from videorl.measures.suites import Suite

if TYPE_CHECKING:
    from torch import Tensor

FILE = "policy.json"
"""Beside the videos of a policy: all that decided them."""
_LABEL = re.compile(r"[\w .+#-]+")


@dataclass(frozen=True)
class NamedPolicy:
    """A policy with its name in the tables."""

    label: str
    recipe: Recipe
    """Says what is loaded and how it samples."""
    checkpoint: Path | None = None
    """Published weights of a run, which replace those that were loaded."""

    def identity(self, suite: Suite) -> dict[str, Any]:
        """Return what decides the videos, as JSON values; places count by their content."""
        from videorl.run.inputs import settings_of_samples

        settings = settings_of_samples(replace(self.recipe, rewards=[]))
        prompts = json.dumps([(prompt.text, prompt.image) for prompt in suite.prompts])
        return {
            "settings": json.loads(json.dumps(settings, default=str)),
            "checkpoint": content_of(self.checkpoint).digest if self.checkpoint else "",
            "prompts": hashlib.sha256(prompts.encode()).hexdigest(),
            "samples": suite.samples,
            "seed": suite.seed,
        }

    def weights(self) -> Mapping[str, Tensor] | None:
        """Return the weights of a run's checkpoint; None = those that the recipe loads.

        Raises:
            CheckpointError: They cannot be read.
        """
        if self.checkpoint is None:
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.checkpoint)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.checkpoint} cannot be read: {error}") from error


def named_policies(given: Sequence[str], recipe: Recipe) -> list[NamedPolicy]:
    """Return the policies of `NAME` or `NAME=PLACE`, all sampled as the recipe says.

    Args:
        given: A name alone is the recipe's policy. A place is the folder or URI of a run (its
            newest checkpoint; `RUN@STEP` = that of a step), an adapter in any layout that is read,
            or a checkpoint of the recipe's family: a folder, or an id of the hub.
        recipe: Its policy and sampling.

    Raises:
        ConfigError: A name is unusable or given twice, or there is no such place.
        CheckpointError: A run has no such checkpoint.
    """
    found: dict[str, NamedPolicy] = {}
    for text in given:
        label, equals, place = text.partition("=")
        if not _LABEL.fullmatch(label) or label.startswith(".") or (equals and not place):
            raise ConfigError(
                "--policy must be NAME or NAME=PLACE, with letters, digits, spaces and .+-_# in "
                f"the name, got {text!r}"
            )
        if label in found:
            raise ConfigError(f"--policy: two policies are called {label}")
        found[label] = _placed(label, place, recipe) if place else NamedPolicy(label, recipe)
    return list(found.values())


def _placed(label: str, place: str, recipe: Recipe) -> NamedPolicy:
    path, at, step = place.rpartition("@")
    if at and step.isdecimal() and (root := _run(path)):
        return _of_run(label, root, recipe, int(step))
    if root := _run(place):
        return _of_run(label, root, recipe, None)
    folder = Path(place).expanduser()
    policy = recipe.policy
    if (folder / "model_index.json").is_file() or not folder.exists():
        return NamedPolicy(label, replace(recipe, policy=replace(policy, path=_checkpoint(place))))
    adapter = replace(policy.lora, initial=str(folder.absolute()))
    return NamedPolicy(label, replace(recipe, policy=replace(policy, lora=adapter)))


def _run(place: str) -> Path | None:
    """Return the folder of a run, of one in an object store a copy; None = it is no run."""
    from videorl.storage.place import is_uri
    from videorl.storage.reading import reading_copy

    is_far = is_uri(place)
    root = reading_copy(place, media=False).root if is_far else Path(place).expanduser()
    return root if (root / "config.yaml").is_file() else None


def _checkpoint(place: str) -> str:
    from videorl.files import hub
    from videorl.policies.checkpoints import SHIPPED

    if Path(place).exists() or place in SHIPPED or hub.parse(place) is not None:
        return place
    raise ConfigError(
        f"{place}: there is no such run, adapter or checkpoint, and it is no id of the hub"
    )


def _of_run(label: str, root: Path, recipe: Recipe, step: int | None) -> NamedPolicy:
    """Return a checkpoint of a run: its own policy settings, the sampling of the comparison."""
    from videorl.recipes.reading import load_recipe
    from videorl.run.compute_type import as_in_run_of
    from videorl.run.published_weights import weights_file

    own = load_recipe(str(root / "config.yaml"))
    _, file = weights_file(own.checkpoint, root.absolute(), step)
    policy = as_in_run_of(own, [str(root)]).policy
    return NamedPolicy(label, replace(recipe, policy=policy), file.absolute())


def note_policy(folder: Path, policy: NamedPolicy, suite: Suite) -> None:
    """Write down what the videos of a folder come from, or see that it is the same.

    Raises:
        ConfigError: The folder has videos of something else.
    """
    path, now = folder / FILE, policy.identity(suite)
    if not path.exists():
        if any(folder.glob("*.mp4")):
            raise ConfigError(
                f"{folder} has videos, but no {FILE} that says what made them; give another --out, "
                "or remove that folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, now)
        return
    then: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in now if then.get(key) != now[key]]
    if "settings" in changed:
        mine, theirs = now["settings"], then.get("settings", {})
        names = {*mine, *theirs}
        changed += sorted(name for name in names if mine.get(name) != theirs.get(name))
    if changed:
        raise ConfigError(
            f"{folder} has videos of {policy.label} that were made otherwise (changed: "
            f"{', '.join(changed)}); give another --out, or remove that folder"
        )


def describe(policy: NamedPolicy) -> str:
    """Return a line on what is sampled."""
    found = [policy.recipe.policy.path, policy.recipe.policy.lora.initial, policy.checkpoint]
    return f"{policy.label}: {' + '.join(str(part) for part in found if part)}"


def samplings(policies: Sequence[NamedPolicy]) -> dict[str, Any]:
    """Return how all of them sample, for the report."""
    return dataclasses.asdict(policies[0].recipe.sampling) if policies else {}
