"""What must be true of every run: pure functions from the evidence to its contradictions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from videorl.audit.evidence import Contradiction, Evidence, Row
from videorl.audit.facts import counters_of, is_counter, learned_alone, scores_of
from videorl.errors import ConfigError
from videorl.rollouts import request_for
from videorl.step_record import LOST_REASONS, TRAINED
from videorl.types import Candidate, WeightVersion


def contradictions(evidence: Evidence, archive: Path) -> list[Contradiction]:
    """Return everything that is wrong, in the order of the pipeline.

    Args:
        evidence: What the run recorded.
        archive: The archive's folder, where the videos are looked up.
    """
    checks = (prompts, candidates, groups, scores, pairs, versions, checkpoint, metrics, summary)
    found = [*evidence.unreadable, *(fault for check in checks for fault in check(evidence))]
    return [*found, *_videos(evidence, archive)]


def prompts(evidence: Evidence) -> Iterator[Contradiction]:
    """Every position before the cursor is in the ledger once, with its text, in its own step."""
    counted = Counter(row["prompt_index"] for row in evidence.tables["prompts"])
    for position in range(evidence.num_taken):
        if counted[position] != 1:
            yield _at(position, f"is in the ledger {counted[position]} times, not once")
    for row in evidence.tables["prompts"]:
        position = row["prompt_index"]
        if not 0 <= position < evidence.num_taken:
            yield _at(position, f"is in the ledger, but {evidence.num_taken} were taken")
            continue
        yield from _differences(
            f"prompt {position}, ledger",
            row,
            {
                "step": position // evidence.recipe.prompts.per_round,
                "prompt": evidence.prompts[position].text,
            },
        )


def candidates(evidence: Evidence) -> Iterator[Contradiction]:
    """Every candidate is there once, as the recipe derives it for its prompt and index."""
    rows = evidence.tables["candidates"]
    yield from _duplicates("archive", "candidate", (row["candidate_id"] for row in rows))
    published = _published(evidence)
    num_candidates = evidence.recipe.prompts.candidates_per_prompt
    for row in rows:
        number, index = row["prompt_index"], row["candidate_index"]
        if not (0 <= index < num_candidates and 0 <= number < evidence.num_taken):
            yield _of(row["candidate_id"], "was never asked for")
            continue
        step = number // evidence.recipe.prompts.per_round
        version_step = max(0, step - evidence.recipe.rollouts.max_staleness)
        version = WeightVersion(version_step, published.get(version_step, "not published"))
        request = request_for(evidence.recipe, evidence.prompts, number, version)
        wanted = Candidate(
            request.round, request.prompt, index, request.seeds[index], version, None, None
        )
        yield from _differences(
            f"candidate {row['candidate_id']}",
            row,
            {
                "candidate_id": wanted.id,
                "step": step,
                "round": wanted.round,
                "prompt": wanted.prompt.text,
                "seed": wanted.seed,
                "version_step": version.step,
                "version_digest": version.digest,
            },
        )


def groups(evidence: Evidence) -> Iterator[Contradiction]:
    """Each prompt's outcome fits its candidates, scored and dropped, and what was learned."""
    scored = Counter(row["prompt_index"] for row in evidence.tables["candidates"])
    paired = Counter(row["prompt_index"] for row in evidence.tables["pairs"])
    weighted = Counter(row["prompt_index"] for row in learned_alone(evidence.tables["candidates"]))
    dropped: Counter[int] = Counter()
    for row in evidence.tables["dropped"]:
        dropped[row["prompt_index"]] += row["count"]
    for row in evidence.tables["prompts"]:
        position, outcome = row["prompt_index"], row["outcome"]
        is_lost = outcome in LOST_REASONS
        wanted = 0 if is_lost else evidence.recipe.prompts.candidates_per_prompt
        if scored[position] + dropped[position] != wanted:
            yield _at(
                position,
                f"is `{outcome}` with {scored[position]} scored and {dropped[position]} dropped "
                f"candidates, which should add up to {wanted}",
            )
        if (paired[position] + weighted[position] > 0) != (outcome == TRAINED):
            yield _at(
                position,
                f"is `{outcome}`, but is in {paired[position]} pairs, and {weighted[position]} of "
                "its candidates were learned from alone",
            )
    known = {row["prompt_index"] for row in evidence.tables["prompts"]}
    for position in sorted({*scored, *paired, *dropped} - known):
        yield _at(position, "has candidates, losses or pairs, but is not in the ledger")


def scores(evidence: Evidence) -> Iterator[Contradiction]:
    """Every candidate has scores, each dimension once; nothing else has scores."""
    rows = evidence.tables["scores"]
    known = {row["candidate_id"] for row in evidence.tables["candidates"]}
    found = {row["candidate_id"] for row in rows if row["kind"] == "reward"}
    yield from (_of(name, "has no scores") for name in sorted(known - found))
    yield from (_of(name, "has scores, but is no candidate") for name in sorted(found - known))
    names = (f"{row['candidate_id']} {row['kind']} {row['dimension']}" for row in rows)
    yield from _duplicates("archive", "score", names)


def pairs(evidence: Evidence) -> Iterator[Contradiction]:
    """Both ends of a pair are candidates of its own prompt and step; its margin is theirs."""
    known = {row["candidate_id"]: row for row in evidence.tables["candidates"]}
    rows = evidence.tables["pairs"]
    rank, scored = evidence.recipe.selection.rank, scores_of(evidence)
    yield from _duplicates("archive", "pair", (_pair_name(row) for row in rows))
    for row in rows:
        ends = [known.get(row["chosen_id"]), known.get(row["rejected_id"])]
        for name, end in zip(("chosen_id", "rejected_id"), ends, strict=True):
            if end is None:
                yield Contradiction(f"pair {_pair_name(row)}", f"{row[name]} is no candidate")
            elif (end["step"], end["prompt_index"]) != (row["step"], row["prompt_index"]):
                yield Contradiction(
                    f"pair {_pair_name(row)}",
                    f"is of step {row['step']}, prompt {row['prompt_index']}, but {row[name]} is "
                    f"of step {end['step']}, prompt {end['prompt_index']}",
                )
        if ends[0] is not None and ends[1] is not None:
            try:
                margin = rank(scored[row["chosen_id"]]) - rank(scored[row["rejected_id"]])
            except ConfigError as error:  # a score is missing
                yield Contradiction(f"pair {_pair_name(row)}", str(error))
            else:
                yield from _differences(f"pair {_pair_name(row)}", row, {"margin": margin})


def versions(evidence: Evidence) -> Iterator[Contradiction]:
    """Each step is there once, was sampled with a published version, and has the due reference."""
    rows = evidence.tables["steps"]
    yield from _once("archive, steps table", (row["step"] for row in rows), evidence.cursor)
    published = _published(evidence)
    staleness, due = evidence.recipe.rollouts.max_staleness, evidence.due_references()
    for row in rows:
        step = row["step"]
        sampled = max(0, step - staleness)
        reference = due[step]
        wanted = {
            "sampled_step": sampled,
            "sampled_digest": published.get(sampled),
            "published_step": step + 1,
            "reference_step": reference,
            "reference_digest": published.get(reference),
        }
        yield from _differences(f"archive, step {step}", row, wanted)


def checkpoint(evidence: Evidence) -> Iterator[Contradiction]:
    """The checkpoint's cursor, published weights and reference history are those of the archive."""
    state = evidence.checkpoint
    if state is None:
        return
    where, published = f"checkpoint of step {evidence.cursor}", _published(evidence)
    # Ranks on a cluster keep the loop's state beside the command that their checkpoint covers.
    loop = state["loop"].get("loop", state["loop"])
    yield from _differences(f"{where}, cursor", loop, {"step": evidence.cursor})
    for step, digest in state["published"].items():
        if digest != published.get(int(step)):
            yield _digest(f"{where}, version {step}", digest, published.get(int(step)))
    due = list(dict.fromkeys([0, *evidence.due_references()]))
    history = loop["reference"]["history"]
    if [step for step, _ in history] != due:
        steps = [step for step, _ in history]
        yield Contradiction(f"{where}, reference history", f"is of steps {steps}, due were {due}")
    for step, digest in history:
        if digest != published.get(step):
            yield _digest(f"{where}, reference of step {step}", digest, published.get(step))


def metrics(evidence: Evidence) -> Iterator[Contradiction]:
    """There is one row per step, and its counters are those of the archive."""
    rows = evidence.metrics
    yield from _once("metrics.jsonl", (row["step"] for row in rows), evidence.cursor)
    by_step: dict[str, dict[int, list[Row]]] = {}
    for name, table in evidence.tables.items():
        by_step[name] = defaultdict(list)
        for row in table:
            by_step[name][row["step"]].append(row)
    for row in rows:
        step = row["step"]
        wanted = counters_of({name: table[step] for name, table in by_step.items()}, step)
        found = {name: value for name, value in row.items() if is_counter(name)}
        for name in sorted({*wanted, *found}):
            if wanted.get(name, 0.0) != found.get(name, 0.0):
                yield Contradiction(
                    f"metrics.jsonl, step {step}",
                    f"{name} is {found.get(name, 'absent')}, "
                    f"but the archive says {wanted.get(name, 0.0)}",
                )


def summary(evidence: Evidence) -> Iterator[Contradiction]:
    """The summary of a finished run agrees with its newest checkpoint."""
    if (found := evidence.summary) is None:
        return
    last = int(found["num_steps"])
    if last > evidence.cursor:
        what = f"says {last} steps, but the newest checkpoint is of step {evidence.cursor}"
        yield Contradiction("summary.json", what)
        return
    digest = _published(evidence).get(last)
    wanted = {"step": last, "digest": digest}
    if (version := found.get("policy_version")) is not None:  # runs in one process may not say it
        yield from _differences("summary.json, policy_version", version, wanted)


def _published(evidence: Evidence) -> dict[int, str]:
    """Return step -> digest of every published version; version 0 is what step 0 sampled with."""
    digests = {row["published_step"]: row["published_digest"] for row in evidence.tables["steps"]}
    first = [row["sampled_digest"] for row in evidence.tables["steps"] if row["step"] == 0]
    return digests | ({0: first[0]} if first else {})


def _videos(evidence: Evidence, archive: Path) -> Iterator[Contradiction]:
    for row in evidence.tables["candidates"]:
        if row["video"] is not None and not (archive / row["video"]).exists():
            yield _of(row["candidate_id"], f"its video {row['video']} is missing")


def _once(where: str, steps: Iterable[int], cursor: int) -> Iterator[Contradiction]:
    counted = Counter(steps)
    for step in range(cursor):
        if counted[step] != 1:
            yield Contradiction(where, f"step {step} is there {counted[step]} times, not once")


def _duplicates(where: str, kind: str, names: Iterable[str]) -> Iterator[Contradiction]:
    for name, number in Counter(names).items():
        if number > 1:
            yield Contradiction(where, f"{kind} {name} is there {number} times")


def _differences(
    where: str, found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[Contradiction]:
    for name, value in wanted.items():
        if found[name] != value:
            yield Contradiction(where, f"{name} is {found[name]!r}, should be {value!r}")


def _digest(where: str, found: str, wanted: str | None) -> Contradiction:
    return Contradiction(where, f"digest is {found}, but {wanted or 'none'} was published")


def _pair_name(row: Row) -> str:
    return f"{row['chosen_id']} > {row['rejected_id']}"


def _at(position: int, what: str) -> Contradiction:
    return Contradiction(f"prompt {position}", what)


def _of(candidate_id: str, what: str) -> Contradiction:
    return Contradiction(f"candidate {candidate_id}", what)
