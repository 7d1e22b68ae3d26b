"""The verbs of FeatureStore that move rows: each one call into the materializer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias

from fastserve.config import Config
from fastserve.errors import RequestError
from fastserve.timeutil import parse_duration, parse_timestamp

if TYPE_CHECKING:
    from materializer.backfill import BackfillSummary
    from materializer.reconcile.report import Report as ReconcileReport
    from materializer.refresh import SetsSummary
    from materializer.run import Summary

Moment: TypeAlias = str | date | int


class Materializing:
    """Part of FeatureStore."""

    config: Config

    def materialize(
        self,
        start: Moment | None = None,
        end: Moment | None = None,
        views: Sequence[str] = (),
        *,
        target: str | None = None,
        now: Moment | None = None,
        engine: str = "local",
        master: str | None = None,
        work: str = "",
    ) -> Summary:
        """Fill the stores with the rows of [start, end]; see `materializer run`, and docs/spark.md for the engine."""
        from materializer.run import materialize  # noqa: PLC0415

        return materialize(
            self.config,
            views=tuple(views),
            start_us=None if start is None else moment_us(start, "start"),
            end_us=None if end is None else moment_us(end, "end"),
            target=target,
            now_us=None if now is None else moment_us(now, "now"),
            engine=engine,
            master=master,
            work=work,
        )

    def materialize_incremental(
        self,
        views: Sequence[str] = (),
        *,
        target: str | None = None,
        now: Moment | None = None,
        engine: str = "local",
        master: str | None = None,
        work: str = "",
    ) -> Summary:
        """Fill the stores with what is new since the last run, late rows and corrections included."""
        from materializer.run import materialize  # noqa: PLC0415

        return materialize(
            self.config,
            views=tuple(views),
            incremental=True,
            target=target,
            now_us=None if now is None else moment_us(now, "now"),
            engine=engine,
            master=master,
            work=work,
        )

    def backfill(  # noqa: PLR0913  (a call names each)
        self,
        view: str,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        target: str | None = None,
        workers: int | None = None,
        again: bool = False,
        now: Moment | None = None,
        engine: str = "local",
        master: str | None = None,
    ) -> BackfillSummary:
        """Fill a view's stores with the dates of [start, end] that are not complete; see `materializer backfill`.

        Args:
            start, end: both dates are filled whole; None for the source's first, and for today.
            workers: tasks at once, by default 1, and with Spark one a core; with more than one process, a script
                calls this under ``if __name__ == "__main__":``.
            again: do dates that are complete again.
            engine, master: `local`, or `spark` and the URL of its master; see docs/spark.md.

        Raises:
            RequestError: an unknown view or target; nothing was changed. What goes wrong after that is the
                summary's `error`.
        """
        from materializer.backfill import BackfillRequest, backfill  # noqa: PLC0415

        request = BackfillRequest(
            view=view,
            start_us=None if start is None else moment_us(start, "start"),
            end_us=None if end is None else moment_us(end, "end"),
            target=target,
            workers=workers,
            again=again,
            now_us=None if now is None else moment_us(now, "now"),
            engine=engine,
            master=master,
        )
        return backfill(self.config, request)

    def refresh(
        self,
        view: str,
        *,
        keep: str = "1h",
        carry: bool | None = None,
        allow_fewer: bool = False,
        now: Moment | None = None,
    ) -> SetsSummary:
        """Build a view's online rows anew beside those served, and switch to them at once.

        Args:
            keep: how long the rows before are kept for a `rollback`; a minute at least.
            carry: whether rows that only the served set has are taken over; None: of views with a push source.
            allow_fewer: switch even to less than half as many rows.

        Raises:
            RequestError: an unknown view, or its last switch is less than a minute ago; nothing was changed. What goes
                wrong after that is the summary's `error`.
        """
        from materializer.refresh import RefreshRequest, refresh  # noqa: PLC0415

        request = RefreshRequest(
            view=view,
            keep_us=duration_us(keep, "keep"),
            carry=carry,
            allow_fewer=allow_fewer,
            now_us=None if now is None else moment_us(now, "now"),
        )
        return refresh(self.config, request)

    def rollback(self, view: str, *, keep: str = "1h") -> SetsSummary:
        """Serve the rows before a view's last refresh again, with every push and run since.

        Args:
            keep: how long those served until now are kept, to take the rollback back.

        Raises:
            RequestError: an unknown view, or there are no rows to go back to.
        """
        from materializer.refresh import rollback  # noqa: PLC0415

        return rollback(self.config, view, keep_us=duration_us(keep, "keep"))

    def reconcile(
        self,
        views: Sequence[str] = (),
        *,
        sample: int | None = 10_000,
        grace: str = "1h",
        now: Moment | None = None,
        **options: Any,
    ) -> ReconcileReport:
        """Compare online rows with what their history says now; `print(report)`. See `materializer reconcile`.

        Args:
            views: `name` or `name@v2`; none for all that are online and have a history.
            sample: so many keys, drawn at random; None for all, and those that only the online store has.
            grace: how long after its creation a row may be online without being in history.
            options: seed, repair, prune, ignore (kinds of differences).

        Raises:
            RequestError: an unknown view, or options that make no sense.
            StoreError: an embedded online store cannot be opened.
        """
        from materializer.reconcile.request import Request  # noqa: PLC0415
        from materializer.reconcile.run import reconcile  # noqa: PLC0415

        options |= {"views": tuple(views), "ignore": tuple(options.get("ignore", ()))}
        options |= {
            "grace_us": duration_us(grace, "grace"),
            "now_us": None if now is None else moment_us(now, "now"),
        }
        return reconcile(self.config, Request(sample=sample, **options))


def duration_us(text: str, argument: str) -> int:
    """Microseconds of a duration given as an argument; raises RequestError, as moment_us."""
    try:
        return parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise RequestError(str(error), where=argument) from None


def moment_us(moment: Moment, argument: str) -> int:
    """Microseconds of a time given as an argument.

    Raises:
        RequestError: it is no time; names the argument.
    """
    try:
        return parse_timestamp(moment)
    except ValueError as error:
        raise RequestError(str(error), where=argument) from None
