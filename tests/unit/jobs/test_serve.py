"""`videorl serve`: what is wrong with its arguments is said before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from jobs import command, serve
from jobs.exit_codes import ExitCode
from tests.serving import aligned_run, small_recipe
from videorl.recipes.reading import to_yaml
from videorl.serving.limits import ServingLimits
from videorl.serving.requests import BASE


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    aligned_run(root / "first", 1)
    aligned_run(root / "second", 2)
    for name, settings in {
        "other": ("policy.lora.rank=8", "policy.lora.alpha=8"),
        "whole": ("policy.lora.rank=0", "sampling.merge_lora=false"),
        "unfinished": (),
    }.items():
        (root / name).mkdir()
        recipe = small_recipe(f"name={name}", *settings)
        (root / name / "config.yaml").write_text(to_yaml(recipe))
    return root


def read(*arguments: str) -> Any:
    options = serve._parser().parse_args(arguments)
    served, name = serve._served(options)
    return serve._site(options, served, name, serve._rewards(options), None), served


def test_limits_are_options_with_the_same_defaults() -> None:
    assert {field.name: field.default for field in fields(ServingLimits)} == {
        name: default for name, (default, _) in serve._LIMITS.items()
    }


def test_a_run_is_served_aligned_and_a_recipe_as_it_is(runs: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    site, served = read(str(runs / "first"), "--adapter", f"b={runs / 'second'}", *out)
    assert site.offer.adapters == ("first", "b", BASE)
    assert served.adapters == {
        "first": str(runs / "first/aligned"),
        "b": str(runs / "second/aligned"),
    }
    site, served = read("moving_shapes", "--reward", "moving_shapes", "--max-replicas", "3", *out)
    assert site.offer.model == "moving_shapes"
    assert site.offer.adapters == (BASE,)
    assert site.offer.rewards == ("moving_shapes",)
    assert site.replicas.videos == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_recipe"], "no recipe 'no_such_recipe'"),
        (["first", "--adapter", "x"], "must be NAME=RUN"),
        (["first", "--adapter", "../x=second"], "a name of letters"),
        (["first", "--adapter", "first=second"], "name of the run itself"),
        (["first", "--adapter", "base=second"], "the model without adapters"),
        (["first", "--adapter", "a=second", "--adapter", "a=second"], "too: choose another"),
        (["first", "--adapter", "a=nowhere"], "no run folder"),
        (["first", "--adapter", "a=other"], "policy.lora.rank=8 instead of 4"),
        (["whole"], "all weights were trained"),
        (["unfinished"], "the run has not ended"),
        (["first", "--latent-reward", "nowhere"], "config.json"),
        (["first", "--reward", "nothing"], "nothing"),
        (["first", "--max-queued", "0"], "--max-queued must be > 0"),
        (["first", "--batch-size", "0"], "--batch-size must be >= 1"),
        (["first", "--no-token", "--host", "0.0.0.0"], "loopback address alone"),
        (["wan_2_1_i2v_14b_480p"], "makes videos of pictures"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    said: str,
) -> None:
    monkeypatch.chdir(runs)
    assert command.run(serve.main, [*arguments, "--out", str(tmp_path)]) == ExitCode.REFUSED
    assert said in capsys.readouterr().err


def test_a_port_in_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["moving_shapes", "--port", port, "--out", str(tmp_path)]
        assert command.run(serve.main, arguments) == ExitCode.REFUSED
    assert "choose another with --port" in capsys.readouterr().err


def test_a_token_is_made_unless_the_environment_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    options = serve._parser().parse_args(["moving_shapes"])
    monkeypatch.delenv(serve.TOKEN, raising=False)
    first, second = serve._token(options), serve._token(options)
    assert first != second
    assert len(first or "") > 30
    monkeypatch.setenv(serve.TOKEN, "given-token")
    assert serve._token(options) == "given-token"
    monkeypatch.setenv(serve.TOKEN, "short")
    with pytest.raises(serve.ConfigError, match="8 or more"):
        serve._token(options)
    options.no_token = True
    assert serve._token(options) is None
