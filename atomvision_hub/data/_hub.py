"""What publishing and loading share: version tags, patience with the Hub, its errors in plain words."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from atomvision_hub.errors import AtomVisionError, NetworkNeededError, UsageError

_TAG = re.compile(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")

#: Seconds to wait before each new attempt after a passing failure (overloaded server, broken line).
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
#: A server that says nothing for so many seconds counts as a broken line. Large commits take a while.
STALL_SECONDS = 300.0

_PASSING_STATUS = frozenset({408, 412, 429, 500, 502, 503, 504})
# The client's transport library is httpx or its successor, depending on its version: told by name.
_PASSING_ERRORS = frozenset({"TimeoutException", "NetworkError", "RemoteProtocolError"})
_NO_CONNECTION = frozenset({"ConnectError", "ConnectTimeout"})

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def parse_tag(tag: str) -> tuple[int, int, int] | None:
    """Return the numbers of a version tag ``vX.Y.Z``, `None` for any other name."""
    match = _TAG.fullmatch(tag)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def newest_tag(tags: Iterable[str]) -> str | None:
    """Return the highest version among `tags`, ignoring names that are no versions."""
    versions = {numbers: tag for tag in tags if (numbers := parse_tag(tag))}
    return versions[max(versions)] if versions else None


def check_repo_id(repo_id: str) -> None:
    """Raise `UsageError` unless `repo_id` is a full name ``ORG/NAME`` that the Hub accepts."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
        valid = repo_id.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise UsageError(
            f"{repo_id!r} is no repository name; write ORG/NAME with letters, digits, '-', '_' and '.'"
        )


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_a(error: BaseException, names: frozenset[str]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _is_passing(error: BaseException) -> bool:
    """Tell whether the same request may well succeed later."""
    return _status(error) in _PASSING_STATUS or _is_a(error, _PASSING_ERRORS)


def is_unreachable(error: BaseException) -> bool:
    """Tell whether the client could not reach the Hub (or offline mode is on)."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return any(
        isinstance(cause, OfflineModeIsEnabled) or _is_a(cause, _PASSING_ERRORS) for cause in _chain(error)
    )


def patiently(action: Callable[[], _Result], doing: str, *, reconnect: bool = True) -> _Result:
    """Run `action`, again after a pause when it fails for a passing reason; the last failure is raised.

    When not even a connection can be made, there is probably no network: two more attempts are enough, and
    none where the client itself has tried (without `reconnect`).
    """
    for attempt, pause in enumerate(PAUSES):
        try:
            with _watched_session():
                return action()
        except Exception as error:
            reason = next((cause for cause in _chain(error) if _is_passing(cause)), None)
            no_connection = reason is not None and _is_a(reason, _NO_CONNECTION)
            if reason is None or (no_connection and (attempt >= 2 or not reconnect)):
                raise
            what = f"status {_status(reason)}" if _status(reason) else type(reason).__name__
            _log.warning("%s failed (%s); next attempt in %.0f s", doing, what, pause)
        time.sleep(pause)
    with _watched_session():
        return action()


@contextmanager
def _watched_session() -> Iterator[None]:
    """Limit how long the client's requests may stall, and keep its own retry messages to itself.

    Without a limit of its own the client waits for ever. Its messages carry signed addresses.
    """
    from huggingface_hub import get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from huggingface_hub.utils import logging as hub_logging

    session = get_session()
    timeout, session.timeout = session.timeout, STALL_SECONDS
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    hide_bars = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hide_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        session.timeout = timeout
        hub_logging.set_verbosity(verbosity)
        if hide_bars:
            enable_progress_bars()


@contextmanager
def hub_errors(repo_id: str, endpoint: str | None = None) -> Iterator[None]:
    """Turn the Hub client's exceptions into one line each, with what to do next."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except AtomVisionError:
        raise
    except Exception as error:
        # The client's own errors and failures of the transport, bare or wrapped by the uploading threads. All
        # else (a full disk, a defect) is somebody else's.
        known = isinstance(
            error, HfHubHTTPError | LocalEntryNotFoundError | OfflineModeIsEnabled | ValueError
        )
        if not known and not any(_is_passing(cause) or _status(cause) for cause in _chain(error)):
            raise
        raise _explained(error, repo_id, endpoint or constants.ENDPOINT) from error


def _explained(error: BaseException, repo_id: str, endpoint: str) -> AtomVisionError:
    from huggingface_hub import errors

    causes = list(_chain(error))
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return NetworkNeededError(
            f"{repo_id} needs the Hub, but offline mode is on; unset HF_HUB_OFFLINE and try again"
        )
    for cause in causes:
        if isinstance(cause, errors.RevisionNotFoundError):
            return AtomVisionError(f"{repo_id} has no such revision; see {endpoint} for its versions")
        if isinstance(cause, errors.RepositoryNotFoundError):
            return AtomVisionError(
                f"{repo_id} does not exist at {endpoint}, or is private; check its name, and set HF_TOKEN to "
                "a token that may read it"
            )
        status = _status(cause)
        if status == 401:
            return AtomVisionError(
                f"{endpoint} does not accept the token; set HF_TOKEN to a valid one or run `hf auth login`"
            )
        if status == 403:
            return AtomVisionError(
                f"the token may not write to {repo_id}; use one with write permission, of a member of "
                f"{repo_id.partition('/')[0]}"
            )
        if status in _PASSING_STATUS:
            return AtomVisionError(
                f"{endpoint} keeps failing (status {status}); run the same command later, it goes on"
            )
        if status:
            said = " ".join(str(getattr(cause, "server_message", None) or cause).split())
            return AtomVisionError(f"{endpoint} refused the request for {repo_id} (status {status}): {said}")
    if any(_is_passing(cause) for cause in causes):
        return NetworkNeededError(
            f"cannot reach {endpoint} or the line broke; check the network (and HF_ENDPOINT) and run the "
            "same command again, it goes on"
        )
    return AtomVisionError(f"{repo_id}: {' '.join(str(error).split())}")
