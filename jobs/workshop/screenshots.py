"""Make the documentation's pictures of `videorl watch` and `videorl judge` from a real run.

    python -m jobs.workshop.screenshots runs/moving_shapes --out docs/images/watch
    python -m jobs.workshop.screenshots runs/moving_shapes --out docs/images --shots judge

Needs playwright and Debian's `chromium`. Each picture is reduced to 256 colours.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

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
SIZE = {"width": 1280, "height": 800}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures."""
    parser = command.new_parser("python -m jobs.workshop.screenshots", __doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    command.add_option(parser, "--out", Path("docs/images/watch"), "folder of the pictures")
    text = "which pictures to make"
    command.add_option(parser, "--shots", list(SHOTS), text, choices=[*SHOTS, JUDGE])
    options = parser.parse_args(argv)
    if not CHROMIUM.exists():
        raise ConfigError(f"{CHROMIUM} is missing: apt-get install chromium")
    folder = command.output_folder(options.out)
    if shots := [name for name in options.shots if name != JUDGE]:
        with served(options.run) as url:
            for name in shots:
                tab, scheme = SHOTS[name]
                take(f"{url}?tab={tab}", ".q-tab-panel", folder / f"{name}.png", scheme=scheme)
    if JUDGE in options.shots:
        with tempfile.TemporaryDirectory() as out:
            words = ("--out", out, "--num-pairs", "3")
            with served(options.run, *words, module="jobs.judge") as url:
                take(f"{url}?name=anna", ".save", folder / f"{JUDGE}.png", keys="12")
    return 0


def take(url: str, awaited: str, path: Path, *, scheme: str = "light", keys: str = "") -> None:
    """Write a picture of a page.

    Args:
        url: Its address.
        awaited: The selector of what must be there.
        path: Of the picture.
        scheme: `light` or `dark`.
        keys: What is pressed before.
    """
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # pyright: ignore
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
