"""What an error of a remote call means for the worker and for its work."""

from __future__ import annotations

from enum import Enum
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import (
    ObjectFetchTimedOutError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from videorl.errors import (
    MediaLostError,
    PoolFailedError,
    PoolLostError,
    VideorlError,
    WeightMismatchError,
    WorkLostError,
)


class Outcome(Enum):
    """What a pool does about an error."""

    REPLACE = "the worker is gone or not to be trusted: replace it, repeat the work elsewhere"
    RETRY = "the worker stays, the work is tried again, elsewhere if possible"
    GIVE_UP = "the work itself is wrong or its inputs are gone: it fails now"


def cause_of(error: BaseException) -> BaseException:
    """Return the exception that was raised inside the worker, or `error` if it came from Ray."""
    return error.cause if isinstance(error, RayTaskError) else error  # pyright: ignore


def answer(ref: ObjectRef) -> Any:
    """Wait for a remote call; an error inside the worker is raised as it was raised there."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise cause_of(error) from None


def judge(error: BaseException) -> Outcome:
    """Decide what to do about a failed call.

    A `RayTaskError` comes from the worker, so the worker lives. An error raised on purpose
    (`VideorlError`) would come again on any worker, except `WeightMismatchError`, which says that
    this worker's weights are wrong. An input that did not come in time is slow, not lost. Any other
    error of Ray's means that the worker is out of reach.
    """
    cause = cause_of(error)
    if isinstance(cause, WeightMismatchError):
        return Outcome.REPLACE
    if isinstance(cause, ObjectFetchTimedOutError):
        return Outcome.RETRY
    if isinstance(cause, VideorlError | ObjectLostError):
        return Outcome.GIVE_UP
    if isinstance(error, RayTaskError) or not isinstance(error, RayError):
        return Outcome.RETRY
    return Outcome.REPLACE


def is_fenced(error: BaseException) -> bool:
    """Tell whether a worker was given up because what it holds or samples is wrong."""
    return isinstance(cause_of(error), WeightMismatchError)


def died(error: BaseException) -> bool:
    """Tell whether the worker's process, and perhaps its whole node, is gone or out of reach."""
    return isinstance(error, RayError) and not isinstance(error, RayTaskError | ObjectLostError)


def was_preempted(error: BaseException) -> bool:
    """Tell whether a worker died because a cloud took its node back, after a notice."""
    return isinstance(error, RayActorError) and error.preempted


def as_own_error(error: BaseException) -> VideorlError:
    """Return the error for whoever waits for work that was given up."""
    cause = cause_of(error)
    if isinstance(cause, VideorlError):
        return cause
    return MediaLostError(f"an input is gone from the object store: {first_line(cause)}")


def given_up(name: str, attempts: int, error: BaseException) -> WorkLostError:
    """Return the error for whoever waits for work that failed too often."""
    lost = WorkLostError(
        f"{name}: given up after {attempts} attempts; the last error was {first_line(error)}"
    )
    lost.__cause__ = error
    return lost


def hopeless(
    name: str, attempts: int, error: BaseException, *, has_served: bool = False
) -> PoolFailedError:
    """Return the error of a pool none of whose workers can start.

    What a worker says of itself while it starts is a mistake, such as a model that is not there. A
    process that dies or hangs, and any failure where others have served, is the cluster's; not so
    a worker's class that cannot be made there, or an environment that cannot be built.
    """
    is_own = isinstance(error, RuntimeEnvSetupError)
    is_own = is_own or (isinstance(error, RayActorError) and error.actor_init_failed)
    is_lost = has_served or (died(error) and not is_own) or isinstance(error, TimeoutError)
    failure = (PoolLostError if is_lost else PoolFailedError)(
        f"pool {name}: {attempts} workers in a row could not start; the last said: "
        f"{first_line(error)}"
    )
    failure.__cause__ = error
    return failure


def first_line(error: BaseException) -> str:
    """Return `Type: message` on one line, without Ray's remote traceback."""
    cause = cause_of(error)
    text = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {text[0] if text else ''}"
