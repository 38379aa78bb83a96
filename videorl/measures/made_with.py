"""What the numbers of a comparison rest on besides the policies: they compare on equal terms only.

`measured.json` has it under `made_with`:

    videos      label -> where its clips come from: `clips`, `shape`, and of policies `prompts`,
                `seed`, `samples`, `sampling.…`
    measures    measure, `reward MODEL` or `real clips, FEATURES` -> the network, weights and
                settings behind it
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from videorl.data.score_reading import ScoredClips
from videorl.errors import ConfigError
from videorl.files.content import digest_of, file_digest
from videorl.measures.folders import Folder
from videorl.measures.measuring import FEATURES, Measure, Measured
from videorl.measures.policies import FILE, NamedPolicy
from videorl.measures.suites import Suite
from videorl.recipes.fingerprint import is_default

MadeWith: TypeAlias = Mapping[str, Mapping[str, Any]]
VIDEOS, MEASURES = "videos", "measures"
_PROMPTS, _SHAPE = "prompts", "shape"
_WHERE_KNOWN = {_PROMPTS, _SHAPE}
"""Facts that folders may lack: `clips` says it too, and only what opens clips knows their shape."""
_SAMPLING = "sampling."
_SHOWN, _DIGITS = 5, 12


def of_policies(policies: Sequence[NamedPolicy], suite: Suite) -> dict[str, dict[str, Any]]:
    """Return, by label, what is known of videos before they are sampled."""
    # Neither their order nor where their pictures lie changes a video.
    rows = sorted(
        [prompt.text, file_digest(Path(prompt.image)) if prompt.image else ""]
        for prompt in suite.prompts
    )
    prompts = _short(digest_of([json.dumps(row) for row in rows]))
    return {
        policy.label: {_PROMPTS: prompts, **_of_identity(policy.identity(suite))}
        for policy in policies
    }


def of_folders(
    folders: Sequence[Folder], measured: Mapping[str, Measured]
) -> dict[str, dict[str, Any]]:
    """Return, by label, which prompts the clips are of, and how they were sampled if that is known.

    Args:
        folders: What is compared.
        measured: By label, what was measured of them.

    Raises:
        ConfigError: A note of what was sampled is damaged.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        units = sorted(Counter(map(folder.unit, folder.keys)).items())
        said = f"{len(folder.keys)} of {len(units)} prompts ({_short(digest_of(units))})"
        facts = found[folder.label] = {"clips": said, **_noted(folder.place / FILE)}
        if folder.label in measured and (shape := measured[folder.label].shape):
            facts[_SHAPE] = shape
    return found


def of_measures(
    measures: Sequence[Measure],
    models: Mapping[str, Mapping[int, ScoredClips]] | None = None,
    reference: Measured | None = None,
) -> dict[str, str]:
    """Return what each number rests on.

    Args:
        measures: Of single clips.
        models: Label of a reward model -> number of a folder -> its scores.
        reference: What was measured of real clips.
    """
    found = {each.name: _short(digest_of([each.settings])) for each in measures if each.settings}
    for label, scored in (models or {}).items():
        made = sorted({each.made_with for each in scored.values()})
        found[f"reward {label}"] = ", ".join(map(_short, made))
    for name in FEATURES:
        if reference is not None and (values := reference.values.get(name)):
            # Of the clips: their features differ in the last bits from device to device.
            rows = sorted(reference.digests[key] for key in values)
            found[f"real clips, {name}"] = f"{len(rows)} ({_short(digest_of(rows))})"
    return found


def read_made_with(path: Path) -> MadeWith | None:
    """Return what a `measured.json` was made with; None where it does not say.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8")).get("made_with")
        if found is None:
            return None
        videos = {str(label): dict(facts) for label, facts in found[VIDEOS].items()}
        return {VIDEOS: videos, MEASURES: dict(found[MEASURES])}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--baseline: {path} cannot be read as a measured.json of `videorl measure`: {error!r}"
        ) from error


def differences(then: MadeWith | None, now: MadeWith, *, is_whole: bool) -> list[str]:
    """Return what two comparisons were made with that differs.

    Policies may differ, which is what is compared; folders and measures that one of them lacks are
    left to the rules.

    Args:
        then: Of the baseline; None = it does not say.
        now: Of this comparison.
        is_whole: All that will be known of the videos is known.
    """
    if then is None:
        return ["it does not say what it was made with, as earlier versions did not"]
    found: list[str] = []
    for label in then[VIDEOS].keys() & now[VIDEOS].keys():
        before, after = then[VIDEOS][label], now[VIDEOS][label]
        keys = before.keys() & after.keys()
        if is_whole:
            one_has = (before.keys() ^ after.keys()) - _WHERE_KNOWN
            known = {**before, **after}
            # A setting that came with a later version is what it was before.
            keys |= {key for key in one_has if not _is_default(key, known[key])}
        found += _changed(before, after, sorted(keys), f"{label}: ")
    before, after = then[MEASURES], now[MEASURES]
    return sorted(found) + _changed(before, after, sorted(before.keys() & after.keys()), "")


def check_baseline(
    path: Path, then: MadeWith | None, now: MadeWith, *, is_whole: bool, is_accepted: bool
) -> list[str]:
    """Refuse a baseline that was made with something else; return what differs, if accepted.

    Raises:
        ConfigError: It differs, and that is not accepted.
    """
    found = differences(then, now, is_whole=is_whole)
    if found and not is_accepted:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ConfigError(
            f"--baseline: {path} was made with something else, so that a change says nothing of "
            f"the policies: {'; '.join(found[:_SHOWN])}{more}. Make a baseline anew, or give "
            "--accept-baseline to compare all the same"
        )
    return found


def _changed(
    before: Mapping[str, Any], after: Mapping[str, Any], keys: Sequence[str], of: str
) -> list[str]:
    pairs = ((key, before.get(key, "not known"), after.get(key, "not known")) for key in keys)
    return [f"{of}{key} was {old}, is {new}" for key, old, new in pairs if old != new]


def _is_default(key: str, value: Any) -> bool:
    return key.startswith(_SAMPLING) and is_default(key, value)


def _noted(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return _of_identity(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error!r}): remove it, and its videos") from error


def _of_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a policy's note is not the policy itself, nor its prompts."""
    sampling = {
        key: value for key, value in identity["settings"].items() if key.startswith(_SAMPLING)
    }
    return {"seed": identity["seed"], "samples": identity["samples"], **sampling}


def _short(digest: str) -> str:
    return digest[:_DIGITS]
