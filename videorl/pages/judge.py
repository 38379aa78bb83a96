"""The page of `videorl judge`: two videos side by side, and what is asked of them."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Request
from nicegui import ui
from starlette.responses import FileResponse

from videorl.errors import ConfigError, RunFolderError
from videorl.judging.annotators import checked_name, who
from videorl.judging.answers import Answers, given
from videorl.judging.assignment import Assignment
from videorl.judging.questions import A, B, seen_as
from videorl.judging.study import Study, StudyPair
from videorl.pages.frame import address, build, layout
from videorl.report.video_cells import clipped

logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_SIDES = {"left": A, "right": B}
_QUOTED = 300
"""Characters of a prompt that a question quotes at most: above it stands whole."""
_UNKNOWN = (
    "This link has no token of the study, or an unknown one: ask whoever runs the study for your "
    "own link."
)


def _blind(path: str, request: Request) -> FileResponse:
    """Return a file without its date, or a digest of that: the newer is the newer model's.

    So nobody can ask for what has changed since. Nor do browsers keep it, as another study may have
    another video at the same address.
    """
    response = FileResponse(path, headers={"Cache-Control": "no-store"}, stat_result=os.stat(path))
    for name in ("last-modified", "etag"):
        del response.headers[name]
    if "if-range" in request.headers:  # of a file that has not changed: unknown, so all of it
        kept = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
        request.scope["headers"] = kept
    return response


def judge_app(study: Study, answers: Answers, tokens: Mapping[str, str]) -> FastAPI:
    """Return the application in which people answer.

    Args:
        study: What is asked.
        answers: Open for writing.
        tokens: Token by name; empty = whoever opens the page gives a name.
    """
    assignment = Assignment(study, answers)

    def video(
        request: Request, pair: str, side: str, token: str = "", name: str = ""
    ) -> FileResponse:
        """Answer with what a person sees on a side; the address does not say whose video it is."""
        person = who(tokens, token) if tokens else name
        found = study.by_id.get(pair)
        if person is None or found is None or side not in _SIDES:
            raise HTTPException(404, "no such video")
        path = found.side(seen_as(_SIDES[side], study.left(found, person))).video
        if not os.path.isfile(path):
            raise HTTPException(404, "the file is missing")
        return _blind(path, request)

    def home(token: str = "", name: str = "") -> None:
        with layout("Which video is better?"):
            person = who(tokens, token) if tokens else _checked(name)
            if person is not None:
                credential = f"token={quote(token)}" if tokens else f"name={quote(person)}"
                Judging(study, answers, assignment, person, credential)
            elif tokens:
                ui.label(_UNKNOWN).classes("note")
            else:
                _ask_name()

    def pages(app: FastAPI) -> None:
        app.add_api_route("/video/{pair}/{side}", video, methods=["GET", "HEAD"])
        style, script = (
            _HERE.joinpath(f"judge.{kind}").read_text("utf-8") for kind in ("css", "js")
        )
        ui.add_head_html(f"<style>{style}</style><script>{script}</script>", shared=True)
        ui.page("/")(home)

    return build("videorl judge", {}, pages)


def _checked(name: str) -> str | None:
    try:
        return checked_name(name)
    except ConfigError:
        return None


def _ask_name() -> None:
    """Ask who judges; the name goes into the address, so that a reload goes on."""

    def begin() -> None:
        try:
            ui.navigate.to(address(f"/?name={quote(checked_name(field.value or ''))}"))
        except ConfigError as error:
            ui.notify(str(error), type="warning")

    ui.label(
        "You will see two videos of a text, and say which is better. Your name keeps your answers "
        "apart from those of others, and lets you go on later."
    ).classes("soft")
    with ui.row().style("align-items: center"):
        field = ui.input("your name").on("keydown.enter", begin).props("autofocus")
        ui.button("begin", on_click=begin).props("no-caps")


class Judging:
    """One pair after another for a person; made where it is called.

    Args:
        study: What is asked.
        answers: Where they are kept.
        assignment: Which pair is next.
        person: Who judges.
        credential: The part of an address that says so.
    """

    def __init__(
        self, study: Study, answers: Answers, assignment: Assignment, person: str, credential: str
    ) -> None:
        self._study, self._answers, self._assignment = study, answers, assignment
        self._person = person
        self._videos = {side: (address("/video/"), f"/{side}?{credential}") for side in _SIDES}
        self._choices: dict[str, str] = {}
        """By question, as they are recorded."""
        self._pair: StudyPair | None = None
        self._current = 0
        self._began = 0.0
        self._questions: list[ui.element] = []
        self._buttons: dict[tuple[str, str], ui.button] = {}
        self._body = ui.column().classes("judge")
        self._next()
        # After a lost connection, too: with it a click may have been lost.
        self._body.client.on_connect(self._show_current)

    def _next(self) -> None:
        """Show the next pair, with what was chosen of it before the page was closed."""
        self._pair = self._assignment.next(self._person)
        self._body.clear()
        with self._body:
            done, left = self._assignment.progress(self._person)
            ui.label(f"{self._person}: {done} judged, {left} to go").classes("soft progress")
            if self._pair is None:
                self._say_the_end()
                return
            earlier = self._answers.latest.get((self._pair.id, self._person))
            self._choices = dict(earlier.choices) if earlier else {}
            self._current, self._began = 0, time.monotonic()
            self._show(self._pair)
        self._mark()

    def _say_the_end(self) -> None:
        ui.label("All pairs are judged: thank you. You may close this page.").classes("the-end")
        if lost := self._assignment.num_lost:
            text = f"{lost} pairs were not shown, as a video is missing; the server's log names it."
            ui.label(text).classes("note")

    def _show(self, pair: StudyPair) -> None:
        ui.label(pair.prompt or "(no prompt)").classes("prompt card")
        sides = "".join(
            f'<figure><video src="{escape(f"{start}{quote(pair.id)}{end}")}" muted autoplay loop '
            f'playsinline></video><figcaption class="soft">{side}</figcaption></figure>'
            for side, (start, end) in self._videos.items()
        )
        ui.html(sides, sanitize=False).classes("sides")
        self._questions, self._buttons = [], {}
        for number, question in enumerate(self._study.asks.questions):
            with ui.element("div").classes("question card") as row:
                ui.label(question.about(clipped(pair.prompt, _QUOTED))).classes("asked")
                for choice in self._study.asks.choices:
                    choose = partial(self._answer, self._choose, number, choice.value)
                    button = ui.button(f"{choice.key} {choice.text}", on_click=choose)
                    button.props(f"flat dense no-caps data-key={choice.key}").classes("choice")
                    self._buttons[question.name, choice.value] = button
            self._questions.append(row)
        with ui.element("div").classes("controls"):
            self._save = ui.button("save and go on", on_click=partial(self._answer, self._finish))
            self._save.classes("save").props("no-caps")
            back = ui.button("back", on_click=partial(self._answer, self._back))
            back.props("flat no-caps").classes("back")
            keys = f"1–{len(self._study.asks.choices)} answer"
            text = f"{keys} · Backspace question before · Enter save · space pause · r replay"
            ui.label(text).classes("soft small")

    def _answer(self, does: Callable[..., None], *about: object) -> None:
        """Do what was clicked, and tell the page, which takes no key before."""
        try:
            does(*about)
        finally:
            self._show_current()

    def _choose(self, number: int, seen: str) -> None:
        if self._pair is None:
            return
        left = self._study.left(self._pair, self._person)
        self._choices[self._study.asks.questions[number].name] = seen_as(seen, left)
        self._keep(is_complete=False)
        self._current = min(number + 1, len(self._questions) - 1)
        self._mark()

    def _back(self) -> None:
        self._current = max(self._current - 1, 0)
        self._mark()

    def _finish(self) -> None:
        is_answered = self._pair and len(self._choices) == len(self._questions)
        if is_answered and self._keep(is_complete=True):
            self._next()
        else:
            self._mark()

    def _keep(self, *, is_complete: bool) -> bool:
        """Write what was chosen; return whether it is safe, or was before."""
        assert self._pair is not None
        seconds = time.monotonic() - self._began
        answer = given(self._study, self._pair.id, self._person, self._choices, seconds)
        try:
            self._answers.add(dataclasses.replace(answer, is_complete=is_complete))
        except RunFolderError as error:  # judged in another tab
            ui.notify(str(error), type="warning")
        except OSError as error:
            logger.error("an answer could not be kept: %s", error)
            # Without the path, which names the groups.
            ui.notify(f"not saved: {error.strerror}; try again", type="negative")
            return False
        return True

    def _mark(self) -> None:
        """Show what is chosen, what is asked now, and whether all is answered."""
        if self._pair is None:
            return
        left = self._study.left(self._pair, self._person)
        for (name, value), button in self._buttons.items():
            is_chosen = seen_as(self._choices.get(name, ""), left) == value
            button.classes(**{"add" if is_chosen else "remove": "chosen"})
            button.props(f"aria-pressed={str(is_chosen).lower()}")
        for number, row in enumerate(self._questions):
            row.classes(**{"add" if number == self._current else "remove": "current"})
        self._save.set_enabled(len(self._choices) == len(self._questions))

    def _show_current(self) -> None:
        # By the body's client, as the button that was clicked may be gone.
        self._body.client.run_javascript("videorlJudge.showCurrent()")
