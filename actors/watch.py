"""`videorl watch` on a cluster, as a Ray Serve application.

    serve run actors.watch:app folder=/shared/runs

The folder must be reachable from the node of the replica. There is a single replica, as each
browser's session lives in the process that made its page. Ray Serve gives the path prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve

from videorl.errors import ConfigError


@serve.deployment(name="watch", num_replicas=1, max_ongoing_requests=1000)
@serve.ingress()
class Watch:
    """The pages of a run, or of all runs of a folder; it only reads.

    Args:
        folder: Absolute path, as the replica's node sees it.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def __serve_build_asgi_app__(self) -> Any:
        """Return the application; in the replica, as it cannot travel."""
        from videorl.pages.watch.app import watch_app

        return watch_app(self._folder)


def app(arguments: Mapping[str, str]) -> serve.Application:
    """Return the application for `serve run` and for the `args` of a Serve config.

    Raises:
        ConfigError: There is no `folder`, or it is not an absolute path.
    """
    folder = arguments.get("folder", "")
    if not folder.startswith("/") or set(arguments) != {"folder"}:
        raise ConfigError(
            "actors.watch:app takes one argument, folder=/absolute/path/of/runs, got "
            f"{dict(arguments)!r}"
        )
    return Watch.bind(folder)  # pyright: ignore[reportAttributeAccessIssue]
