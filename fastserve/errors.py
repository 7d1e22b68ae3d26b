"""Every error fastserve raises on purpose. The class says what the caller can do about it.

FastserveError
|- DefinitionError(ValueError)          definitions contradict themselves; .problems lists all of them
|- ConfigError(ValueError)              fastserve.toml, an URL or an option is wrong
|- RequestError(ValueError)             the caller can fix it
|  |- UnknownObjectError                no such service, view, feature, entity, project
|  |- InvalidEntityError                entity values do not fit the view's join keys
|  |- InvalidDataError                  rows of a source, a spine or a push do not fit the schema
|  |- TooLargeError                     more than a declared limit
|  |- SchemaMismatchError               what is served is not what the model was trained on
|- StoreError                           the online store; a retry may help
|  |- StoreUnavailableError(ConnectionError)
|  |- StoreTimeoutError(TimeoutError)
|- OverloadedError                      too much is waiting already; nothing was done, retry later
|- ClientError                          fastserve.client got no usable answer
|  |- UnreachableError(ConnectionError) no connection, or it was lost
|  |- DeadlineError(TimeoutError)       no answer within the deadline of the call
|  |- ServerError                       the server failed, or what answered is no fastserve; .status
|- RegistryError                        the registry
|  |- RegistryConflictError             somebody applied first; plan again
|  |- BreakingChangeError               a view changed incompatibly without a new version
|- MaterializeError                     a run failed; what it finished is kept
|  |- AlreadyRunningError               another run holds the view's lock
|- OfflineStoreError                    an offline table cannot be read or written
|- IncompleteHistoryError               labels reach outside what the offline table covers
|- CodecError                           bytes are corrupt, or we are wrong

Nothing here knows HTTP; serving/errors.py maps a class to a status code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class FastserveError(Exception):
    """Base of all; catch it to catch everything fastserve raises on purpose.

    Args:
        message: what is wrong, in one sentence.
        where: the place, e.g. ``$.entities.user_id[3]``, ``FeatureView 'stats'``, ``column 'a', row 7``.
        hint: what to do about it.
    """

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a set of definitions: which object, what, and the fix."""

    where: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}\n  fix: {self.fix}"


class DefinitionError(FastserveError, ValueError):
    """Definitions are wrong; ``problems`` holds every one found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} problem{'' if count == 1 else 's'} in the definitions"
        super().__init__("\n".join([head, *(f"- {problem}" for problem in self.problems)]))


def guess(name: str, known: Iterable[str]) -> str:
    """What a hint begins with: ``did you mean 'x'? ``, of the known name that is near; else nothing."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


class ConfigError(FastserveError, ValueError):
    """A configuration file, environment variable, URL or option is wrong."""


class RequestError(FastserveError, ValueError):
    """The caller's input is wrong and the caller can mend it."""


class UnknownObjectError(RequestError):
    """A name that the registry does not know; the hint offers the nearest one."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], *, where: str = "") -> UnknownObjectError:
        """Say that `kind` has no `name`, with did-you-mean from `known`."""
        names = sorted(known)
        near = get_close_matches(name, names, n=1, cutoff=0.6)
        if near:
            hint = f"did you mean {near[0]!r}?"
        elif names:
            shown = ", ".join(repr(n) for n in names[:8])
            hint = f"known: {shown}{', …' if len(names) > 8 else ''}"
        else:
            hint = f"no {kind} is registered yet; run `fastserve apply`"
        what, of, whose = kind.partition(" of ")  # "feature of view 'v'": the name stands before its owner
        return cls(f"unknown {what} {name!r}{of}{whose}", where=where, hint=hint)


class InvalidEntityError(RequestError):
    """Entity values do not fit: wrong type, null, ragged, missing or unknown join key."""


class InvalidDataError(RequestError):
    """Rows of a source, a spine or a push do not fit the schema they are meant for."""


class TooLargeError(RequestError):
    """More rows, entities or bytes than a declared limit allows."""


class SchemaMismatchError(RequestError):
    """The features served have another schema than the caller expects, e.g. the one a model was trained with."""


class StoreError(FastserveError):
    """The online store failed; a retry may help."""


class StoreUnavailableError(StoreError, ConnectionError):
    """The online store cannot be reached or refuses the connection."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The online store did not answer in time."""


class OverloadedError(FastserveError):
    """Too much is waiting already. Nothing was done: the same call may succeed after `retry_after_s` seconds."""

    def __init__(self, message: str, *, where: str = "", hint: str = "", retry_after_s: int = 1) -> None:
        super().__init__(message, where=where, hint=hint or "send it again after a moment")
        self.retry_after_s = retry_after_s


class ClientError(FastserveError):
    """A call of fastserve.client got no usable answer."""


class UnreachableError(ClientError, ConnectionError):
    """No connection to the server, or it was lost before the answer was complete.

    ``sent`` says whether the request may have reached the server, and so may have been carried out.
    """

    def __init__(self, message: str, *, where: str = "", hint: str = "", sent: bool = False) -> None:
        super().__init__(message, where=where, hint=hint)
        self.sent = sent


class DeadlineError(ClientError, TimeoutError):
    """No answer within the deadline of the call, retries included."""


class ServerError(ClientError):
    """The server failed (5xx), or what answered does not speak fastserve's API.

    ``status`` is the HTTP status.
    """

    def __init__(self, message: str, *, where: str = "", hint: str = "", status: int = 0) -> None:
        super().__init__(message, where=where, hint=hint)
        self.status = status


class RegistryError(FastserveError):
    """The registry cannot be read or written."""


class RegistryConflictError(RegistryError):
    """The registry moved on since the plan was made; nothing was written."""


class BreakingChangeError(RegistryError, ValueError):
    """Feature views changed incompatibly under an unchanged version; nothing was written.

    ``problems`` holds every such change with its fix.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} incompatible change{'' if count == 1 else 's'} under an unchanged version"
        super().__init__("\n".join([head, *(f"- {problem}" for problem in self.problems)]))


class MaterializeError(FastserveError):
    """A materialization failed; partitions it had finished stay finished."""


class AlreadyRunningError(MaterializeError):
    """Another run holds this view's lock."""


class OfflineStoreError(FastserveError):
    """An offline table cannot be read or written: files gone or damaged, no permission, no space."""


class IncompleteHistoryError(FastserveError):
    """Labels reach outside the range that the view's offline table covers."""


class CodecError(FastserveError):
    """Stored bytes are corrupt, torn or not ours, or the codec is wrong."""
