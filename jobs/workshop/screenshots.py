"""Make the documentation's pictures of a finished run's pages, of `videorl judge` and the report.

    python -m jobs.workshop.screenshots runs/moving_shapes --out docs/images/watch
    python -m jobs.workshop.screenshots runs/moving_shapes --out docs/images --shots judge report

Needs playwright and Debian's `chromium`. Each picture is reduced to 256 colours.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from jobs import command
from jobs.watching import CHROMIUM, served
from videorl.errors import ConfigError

SHOTS = {
    "curves": ("curves", "light"),
    "gallery": ("gallery", "light"),
    "gallery_dark": ("gallery", "dark"),
    "before_and_after": ("before and after", "light"),
    "time_line": ("time line", "dark"),
    "fixed_prompts": ("fixed prompts", "light"),
}
"""Name of a picture -> tab, and light or dark."""
JUDGE = "judge"
"""The picture of a study of the run's pairs, half answered."""
REPORT = "report"
"""The picture of the beginning of the run's report.html."""
SIZE = {"width": 1280, "height": 800}
REPORT_SIZE = {"width": 1240, "height": 1500}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures."""
    parser = command.new_parser("python -m jobs.workshop.screenshots", __doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    command.add_option(parser, "--out", Path("docs/images/watch"), "folder of the pictures")
    text = "which pictures to make"
    command.add_option(parser, "--shots", list(SHOTS), text, choices=[*SHOTS, JUDGE, REPORT])
    options = parser.parse_args(argv)
    if not CHROMIUM.exists():
        raise ConfigError(f"{CHROMIUM} is missing: apt-get install chromium")
    folder = command.output_folder(options.out)
    if shots := [name for name in options.shots if name in SHOTS]:
        with served(options.run) as url:
            for name in shots:
                tab, scheme = SHOTS[name]
                take(f"{url}?tab={tab}", ".q-tab-panel", folder / f"{name}.png", scheme=scheme)
    if JUDGE in options.shots:
        with tempfile.TemporaryDirectory() as out:
            words = ("--out", out, "--num-pairs", "3")
            with served(options.run, *words, module="jobs.judge") as url:
                take(f"{url}?name=anna", ".save", folder / f"{JUDGE}.png", keys="12")
    if REPORT in options.shots:
        url = (options.run.absolute() / "report.html").as_uri()
        take(url, ".verdicts", folder / f"{REPORT}.png", size=REPORT_SIZE)
    return 0


def take(
    url: str,
    awaited: str,
    path: Path,
    *,
    scheme: str = "light",
    keys: str = "",
    size: Mapping[str, int] = MappingProxyType(SIZE),
) -> None:
    """Write a picture of a page.

    Args:
        url: Its address.
        awaited: The selector of what must be there.
        path: Of the picture.
        scheme: `light` or `dark`.
        keys: What is pressed before.
        size: Of the window, in pixels.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport=dict(size), color_scheme=scheme)  # pyright: ignore
        page.goto(url)
        page.wait_for_selector(awaited)
        time.sleep(3)  # until charts are drawn and videos play
        for key in keys:
            page.keyboard.press(key)
            time.sleep(1)
        page.screenshot(path=path)
        browser.close()
    with Image.open(path) as image:
        image.quantize(256).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    raise SystemExit(command.run(main))
