"""What a run came to: latencies by kind of request, errors, whether the client was at its limit, the verdict."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from loadtest.histogram import Histogram
from loadtest.settings import Settings

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 99.99)
MET, MISSED, SATURATED = 0, 1, 3  # exit codes; 2 is a wrong command
BUSY_SHARE: Final = 0.9
EXAMPLES: Final = 3


class Recorder:
    """Takes the engine's results as they come."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = [f"HTTP/{http} {format} x {batch}" for http, format, batch in settings.variants]
        self._by_variant = [Histogram() for _ in self._names]
        self._bytes = [0] * len(self._names)
        self._errors_of = [0] * len(self._names)
        self._by_second: dict[int, Histogram] = {}
        self._lag = Histogram()
        self.errors: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self.seen = 0  # with the warm-up
        self.asked = 0

    def take(self, results: Iterable[Any]) -> None:
        """Count results; the latencies of the warm-up are left out, its errors are not."""
        latencies: dict[int, list[int]] = {}
        seconds: dict[int, list[int]] = {}
        lags: list[int] = []
        for variant, second, latency_us, lag_us, size, error, message in results:
            self.seen += 1
            if error:
                self.errors[error] += 1
                self._errors_of[variant] += 1
                kept = self._examples.setdefault(error, [])
                if len(kept) < EXAMPLES and message not in kept:
                    kept.append(message)
            if second < 0:
                continue
            self.asked += 1
            lags.append(lag_us)
            if not error:
                latencies.setdefault(variant, []).append(latency_us)
                seconds.setdefault(int(second), []).append(latency_us)
                self._bytes[variant] += size
        self._lag.add(lags)
        for variant, found in latencies.items():
            self._by_variant[variant].add(found)
        for at, found in seconds.items():
            self._by_second.setdefault(at, Histogram()).add(found)

    def report(self, end: Mapping[str, float], server: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The whole report, ready for JSON.

        Args:
            end: the engine's last words: seconds, cpu_share, wait_share, unsent.
            server: what is known of the server, e.g. the CPU it used.
        """
        settings = self._settings
        total = Histogram()
        for one in self._by_variant:
            total.merge(one)
        seconds = max(end.get("seconds", 0.0), 1e-9)
        measured = settings.seconds or seconds
        client = {
            "cpu_share": round(end.get("cpu_share", 0.0), 4),
            "wait_share": round(end.get("wait_share", 0.0), 4),
            "unsent": int(end.get("unsent", 0)),
            "lag_p99_ms": self._lag.percentile_ms(99),
            "lag_max_ms": self._lag.max_us / 1_000,
        }
        report = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
            "settings": asdict(settings),
            "rate": {"asked": settings.rate or None, "sent": self.asked / measured, "ok": total.n / measured},
            "requests": self.asked,
            "ok": total.n,
            "errors": {kind: {"count": n, "examples": self._examples[kind]} for kind, n in self.errors.most_common()},
            "latency_ms": summary(total),
            "variants": self._variants(),
            "seconds": [
                {"second": at, "ok": one.n, "p50": one.percentile_ms(50), "p99": one.percentile_ms(99)}
                for at, one in sorted(self._by_second.items())
            ],
            "histogram_us": list(total.buckets()),
            "client": client,
            "server": dict(server or {}),
        }  # fmt: skip
        return report | verdict(settings, total, self.errors, client)

    def _variants(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "ok": h.n,
                "errors": errors,
                "bytes": size // max(h.n, 1),
                "latency_ms": summary(h),
            }
            for name, h, errors, size in zip(
                self._names, self._by_variant, self._errors_of, self._bytes, strict=True
            )
        ]


def summary(found: Histogram) -> dict[str, float]:
    """Milliseconds by percentile, and the longest."""
    return {f"p{q:g}": found.percentile_ms(q) for q in PERCENTILES} | {"max": found.max_us / 1_000}


def verdict(
    settings: Settings, total: Histogram, errors: Mapping[str, int], client: Mapping[str, float]
) -> dict[str, Any]:
    """What the run says of the server, as exit code and words.

    A client at its limit makes latencies, and timeouts, that are not the server's: missing the SLO then proves nothing;
    meeting it still does. It is at its limit when its core is, when it could not send everything, or when the SLO would
    have been met but for requests that it sent late.
    """
    p99, lag = total.percentile_ms(99), client["lag_p99_ms"]
    slow = p99 >= settings.slo_ms
    late = bool(settings.rate) and lag > settings.slo_ms / 4 and p99 - lag < settings.slo_ms
    busy = client["cpu_share"] + client["wait_share"] >= BUSY_SHARE
    saturated = busy or client["unsent"] > 0 or late
    why = []
    if errors:
        why.append(f"{sum(errors.values()):,} errors")
    if not total.n:
        why.append("no right answer")
    if slow:
        why.append(f"p99 {p99:.3g} ms, which is not below {settings.slo_ms:g} ms")
    if saturated:
        why.append(
            f"the client was saturated (CPU {client['cpu_share']:.0%}, waiting for its core"
            f" {client['wait_share']:.0%}, requests left {lag:.3g} ms late at p99,"
            f" {client['unsent']:,.0f} not sent): use a lower rate or a faster client"
        )
    code = MET
    if errors or slow or not total.n or client["unsent"]:
        code = SATURATED if saturated and not set(errors) - {"timeout"} else MISSED
    met = f"p99 {p99:.3g} ms < {settings.slo_ms:g} ms, 0 errors"
    return {"exit_code": code, "saturated": saturated, "verdict": "; ".join(why if code else [met, *why])}
