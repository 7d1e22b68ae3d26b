"""What a client can be told: where the server is, how long to wait, how often to try again. No I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fastserve.errors import ConfigError

if TYPE_CHECKING:
    import ssl

DEFAULT_URL: Final = "http://127.0.0.1:6566"
HTTP_VERSIONS: Final = ("auto", "2", "1.1")
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Retry:
    """When a call is sent again.

    After 429 and 503, after a connection that could not be made, and after one that was lost (every call of this
    client may be carried out twice: reads change nothing, and pushes are idempotent). The pauses double and are
    random, so that clients that failed together do not come back together.

    Attributes:
        attempts: how often a call is sent, at most; 1 never sends it again.
        base_s: the first pause is random within 0..base_s; the next within 0..2 base_s, and so on.
        max_s: the longest pause. A server's Retry-After is waited for in full, but never past the deadline.
        share: a client may send again so many calls for each one that is answered, and `spare` beside: when a server
            refuses most calls, more of them would only keep it overloaded.
        spare: see share.
    """

    attempts: int = 6
    base_s: float = 0.05
    max_s: float = 1.0
    share: float = 0.2
    spare: int = 20

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.base_s, self.max_s, self.share, self.spare) < 0:
            raise ConfigError("attempts is 1 or more, and nothing else is negative", where=repr(self))

    def pause_s(self, attempt: int, retry_after_s: float = 0.0) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None when it was the last."""
        if attempt >= self.attempts:
            return None
        ceiling = min(self.max_s, self.base_s * 2.0 ** (attempt - 1))
        return retry_after_s + random.uniform(0.0, ceiling)


class RetryBudget:
    """What one client may still send again; see Retry.share."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._left = float(retry.spare)

    def answered(self) -> None:
        """A call was answered, if only by an error of the caller's."""
        self._left = min(self._left + self._retry.share, float(self._retry.spare))

    def take(self) -> bool:
        """Whether a call may be sent again; it is counted then."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Options:
    """How a client behaves.

    Attributes:
        token: sent as ``authorization: Bearer …``; never part of a URL or a message.
        deadline_ms: of a call that names none, in all, with its retries.
        http: "2", "1.1", or "auto": HTTP/2 where libnghttp2 or the h2 library is there, else HTTP/1.1; over TLS
            also where the server offers nothing else.
        ca: PEM file of the authorities to trust; '' for the system's.
        cert, key: PEM files of the client's own certificate.
        retry: see Retry.
        max_connections: at most, at once. HTTP/2 opens another only when the others are full.
        max_answer_bytes: a longer answer is an error.
    """

    token: str = field(default="", repr=False)
    deadline_ms: int = 10_000
    http: str = "auto"
    ca: str = ""
    cert: str = ""
    key: str = ""
    retry: Retry = Retry()
    max_connections: int = 4
    max_answer_bytes: int = 512 * MIB

    def __post_init__(self) -> None:
        if self.http not in HTTP_VERSIONS:
            raise ConfigError(
                f"{self.http!r} is no HTTP version", where="http", hint=" | ".join(HTTP_VERSIONS)
            )
        if any(not "!" <= char <= "~" for char in self.token):
            raise ConfigError("holds blanks or other characters that a header cannot", where="token")
        if self.key and not self.cert:
            raise ConfigError("a key needs its certificate", where="key", hint='cert="client.pem"')
        for name in ("deadline_ms", "max_connections", "max_answer_bytes"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"is {getattr(self, name)}, it must be positive", where=name)

    def changed(self, **changes: Any) -> Options:
        """These options with some changed; ConfigError for a name that is none."""
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"options: {', '.join(known)}"
                raise ConfigError(f"unknown option {name!r}", where="client", hint=hint)
        return replace(self, **changes)

    def ssl_context(self, alpn: str) -> ssl.SSLContext:
        """TLS >= 1.2 that verifies the server and offers one protocol, "h2" or "http/1.1".

        Raises:
            ConfigError: a file is missing, unreadable or does not fit the other.
        """
        import ssl  # noqa: PLC0415  (cleartext clients need none of it)

        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(name for name in (self.ca, self.cert, self.key) if name)
            raise ConfigError(
                f"cannot load the TLS files: {error}",
                where=files,
                hint="PEM: the authorities in ca, the client's chain in cert, its private key in key",
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([alpn])
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is: ``scheme://host:port``, and a path prefix ('' or ``/fs``) before every path."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """From ``http://host[:port][/prefix]`` or https.

        Raises:
            ConfigError: the URL is none, or holds more; the port is by default 6566, and 443 for https.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(str(error), where=url, hint=f"write it like {DEFAULT_URL}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("is no http or https URL", where=url, hint=f"write it like {DEFAULT_URL}")
        if "@" in parts.netloc:
            where = f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}"
            raise ConfigError("credentials do not belong into a URL", where=where, hint='token="…"')
        if parts.query or parts.fragment:
            raise ConfigError("has a query or a fragment", where=url, hint=f"write it like {DEFAULT_URL}")
        default = 443 if parts.scheme == "https" else 6566
        return cls(parts.scheme, parts.hostname, port or default, parts.path.rstrip("/"))

    @property
    def tls(self) -> bool:
        """Whether it is https."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """host:port, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"
