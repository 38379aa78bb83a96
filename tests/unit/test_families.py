"""A family is one policy file, one line of each table, a recipe, a docs row and one tests file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.families import TINY
from videorl.planning.published import PUBLISHED
from videorl.policies import FAMILIES
from videorl.policies.defaults import DEFAULTS
from videorl.policies.layouts import FAMILY_OF
from videorl.recipes.reading import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "videorl/recipes/shipped").glob("*.yaml"))


def rows(page: str) -> Iterator[list[str]]:
    """Yield the cells of the table of families of a page."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    first = next(
        n for n, line in enumerate(lines) if re.match(r" *\| `policy\.family` \| model", line)
    )
    for line in lines[first + 2 :]:
        if not line.strip().startswith("|"):
            return
        yield [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


MODELS = [cells[1].split(" ")[0] for cells in rows("families.md")]
"""Names on the hub."""


def test_a_family_is_in_every_table() -> None:
    names = set(FAMILIES)
    assert names == set(TINY) == set(DEFAULTS) == set(FAMILY_OF.values())
    assert names == {cells[0] for cells in rows("extending.md")}
    assert names <= {cells[0] for cells in rows("families.md")}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_its_own_files_and_a_recipe(family: str) -> None:
    assert FAMILIES[family].startswith(f"videorl.policies.{family}:")
    assert (ROOT / f"tests/families/{family}.py").is_file()
    assert any(load_recipe(str(file), []).policy.family == family for file in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_every_model_of_a_recipe_has_a_row(recipe: Path) -> None:
    policy = load_recipe(str(recipe), []).policy
    if "/" not in policy.path or policy.path.startswith("runs/"):  # a folder, none of the hub
        return
    assert policy.path in MODELS


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "/" in name])
def test_a_row_has_the_number_of_parameters(name: str) -> None:
    names = [model.lower() for model in MODELS]
    place = names.index(name.replace("zai-org/", "thudm/"))
    family, _, parameters, *_ = list(rows("families.md"))[place]
    counted = f"{_billions(family, PUBLISHED[name]['transformer']):#.3g}"
    assert counted == re.sub(r"^\d+ × ", "", parameters)


def _billions(name: str, config: Mapping[str, Any]) -> float:
    import torch

    from videorl.planning.linear import from_few
    from videorl.policies import load_family

    family = load_family(name)

    def count(blocks: Mapping[str, int]) -> tuple[float, ...]:
        with torch.device("meta"):
            kind = family.model_classes["transformer"]
            model = kind.from_config(family.shortened(config, blocks))
        return (float(sum(each.numel() for each in model.parameters())),)

    blocks = family.num_blocks(config)
    return from_few(blocks, count)(blocks)[0] / 1e9
