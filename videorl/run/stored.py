"""A run whose folder is a URI: locks, a working copy, and the mirror that stores it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videorl.errors import BusyError, StoreLostError
from videorl.run.lock import hold
from videorl.storage.access import raised
from videorl.storage.copies import copy_of
from videorl.storage.lock import hold_place
from videorl.storage.mirror import Mirror, register
from videorl.storage.preparing import forget_copies, move_aside, open_place, prepare

logger = logging.getLogger(__name__)


@contextmanager
def working_copy(
    uri: str, patience_s: float, *, from_scratch: bool, take_over: bool
) -> Iterator[Path]:
    """Hold a run's folder in a store, and yield its working copy; all is stored at the end.

    Args:
        uri: The run folder.
        patience_s: How long to wait for the store, at the start and later; see `Mirror`.
        from_scratch: Move what is stored to a URI beside it first.
        take_over: Do not wait for signs of life of a driver on another machine.

    Raises:
        RunFolderError: It cannot be written to, or another driver works in it.
        StoreLostError: The store does not answer; what the run wrote is kept here.
    """
    place = open_place(uri, patience_s)
    place.check_writable()
    root = copy_of(uri, "working")
    with hold(root), hold_place(place, root, take_over=take_over) as flag:
        if from_scratch:
            if aside := move_aside(place, flag):
                logger.warning("what %s held is now in %s", uri, aside)
            forget_copies(uri, root)
        note = prepare(root, place, flag)
        mirror = Mirror(root, place.with_patience(0), flag, note, patience_s)
        mirror.start()
        logger.info("%s has its working copy in %s", uri, root)
        register(root, mirror)
        raised(root, (uri, flag.name))
        try:
            yield root
        except BaseException as error:
            _store_the_rest(mirror, error)
            raise
        else:
            mirror.flush()
            logger.info("all of it is stored in %s", uri)
        finally:
            register(root, None)
            raised(root, None)
            mirror.close()


def _store_the_rest(mirror: Mirror, error: BaseException) -> None:
    """Store what there is, unless the error says that this is impossible, or nobody wants to wait.

    The first error is the one to tell.
    """
    if isinstance(error, StoreLostError | BusyError | KeyboardInterrupt | SystemExit):
        return
    try:
        mirror.flush()
    except (StoreLostError, BusyError) as late:
        logger.warning("%s", late)
