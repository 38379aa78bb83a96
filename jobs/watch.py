"""`videorl watch`: the page of a run, or of all runs of a folder, in the browser.

    videorl watch runs/moving_shapes
    videorl watch runs --port 8090
    videorl watch runs --prefix /lab/watch

Curves, candidates, film strips of fixed prompts, pools and alerts, while the run works and after
it. Only reads. By default only this machine can open the page; there are no passwords.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs import command, places
from videorl.settings.extras import needing


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C."""
    parser = command.new_parser("videorl watch", __doc__)
    text = "a run folder, or a folder of run folders, or the URI of either (default: runs)"
    parser.add_argument("folder", type=places.place, nargs="?", default=Path("runs"), help=text)
    text = "address of this machine to listen on; 0.0.0.0 lets everybody who reaches it look"
    command.add_option(parser, "--host", "127.0.0.1", text)
    command.add_option(parser, "--port", 8080, "port to listen on; 0 = any free one")
    text = "path below which a proxy shows the page, such as /lab/watch"
    command.add_option(parser, "--prefix", "", text)
    options = parser.parse_args(argv)

    with needing("videorl watch", "watch"):
        from videorl.pages.frame import serve
        from videorl.pages.watch.app import watch_app

    with places.followed(options.folder, media=True) as folder:
        serve(watch_app(folder), options.host, options.port, options.prefix)
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))
