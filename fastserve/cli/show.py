"""`fastserve list`, `fastserve describe` and `fastserve status`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from fastserve.aggregations.describe import described_features, described_row
from fastserve.cli.options import echo_json, echo_table, json_option, parse_moment, repo_option
from fastserve.cli.statistics import echo_statistics
from fastserve.definitions import AggregatedFeatureView, Definition, FeatureService, FeatureView
from fastserve.definitions.serde import content_hash, kind_of, to_dict
from fastserve.errors import FastserveError, OfflineStoreError, RequestError, UnknownObjectError
from fastserve.registry import RegisteredView, Snapshot
from fastserve.store import FeatureStore
from fastserve.timeutil import format_duration, format_timestamp

KINDS = ("entities", "views", "services", "sources")


@click.command("list")
@repo_option
@json_option
@click.argument("kind", type=click.Choice(KINDS), required=False)
def list_command(repo: str, as_json: bool, kind: str | None) -> None:
    """List what is registered: all of it, or one KIND."""
    with FeatureStore(repo) as store:
        found = {k: _listing(store.snapshot, k) for k in ([kind] if kind else KINDS)}
    if as_json:
        echo_json(found)
        return
    rows = [
        (k, o["name"], o["detail"], o["owner"], o["description"]) for k, objs in found.items() for o in objs
    ]
    if not rows:
        click.echo("nothing is registered yet; run `fastserve apply`")
    else:
        echo_table(("KIND", "NAME", "DETAIL", "OWNER", "DESCRIPTION"), rows)


def _listing(snapshot: Snapshot, kind: str) -> list[dict[str, str]]:
    if kind == "entities":
        items: Iterable[tuple[Any, str]] = (
            (e, ", ".join(f"{k} {t}" for k, t in zip(e.join_keys, e.dtypes, strict=True)))
            for e in snapshot.entities.values()
        )
    elif kind == "views":
        items = ((rv.view, _view_detail(rv)) for rv in snapshot.views.values())
    elif kind == "services":
        items = (
            (s, f"{sum(len(p.features) for p in s.features)} features") for s in snapshot.services.values()
        )
    else:
        push: list[tuple[Any, str]] = [(s, "push") for s in snapshot.push_sources.values()]
        items = push + [(s, "events") for s in snapshot.event_sources.values()]
    return sorted(
        (
            {"name": _versioned(o), "detail": detail, "owner": o.owner, "description": o.description}
            for o, detail in items
        ),
        key=lambda row: row["name"],
    )


def _view_detail(registered: RegisteredView) -> str:
    view = registered.view
    if not view.is_stored:
        return f"{', '.join(registered.needs)}; {len(view.schema)} features; on demand"
    ttl = "no ttl" if view.ttl_us is None else f"ttl {format_duration(view.ttl_us)}"
    if isinstance(view, AggregatedFeatureView):
        ttl = f"windows of {view.events.name}"
    return f"{', '.join(view.entities) or 'no entity'}; {len(view.schema)} features; {ttl}"


def _versioned(obj: Any) -> str:
    version = getattr(obj, "version", 1)
    return obj.name if version == 1 else f"{obj.name}@v{version}"


@click.command("describe")
@repo_option
@json_option
@click.argument("name")
@click.option("--statistics", is_flag=True, help="Of a view: what the rows were like that runs read.")
@click.option("--start", metavar="TIME", help="Statistics of runs whose rows lie between START and END only.")
@click.option("--end", metavar="TIME", help="Likewise; both inclusive.")
def describe_command(
    repo: str, as_json: bool, name: str, statistics: bool, start: str | None, end: str | None
) -> None:
    """Everything the registry knows of NAME: an entity, a view (or view@v2), a service, a source."""
    if not statistics and (start or end):
        raise RequestError("--start and --end are of statistics", where="--start", hint="add --statistics")
    within = (parse_moment(start, "--start"), parse_moment(end, "--end"))
    with FeatureStore(repo) as store:
        objects = _named(store.snapshot, name)
        noted = {
            id(obj): store.statistics(_with_version(obj), *within)
            for obj in objects
            if statistics and isinstance(obj, FeatureView) and obj.is_stored
        }
        found = [_described(store, obj) for obj in objects]
    for obj, about in zip(objects, found, strict=True):
        of_view = noted.get(id(obj))
        if as_json and id(obj) in noted:
            about["statistics"] = None if of_view is None else of_view.to_dict()
        elif not as_json:
            echo_tree(about)
            if id(obj) in noted:
                echo_statistics(of_view)
    if as_json:
        echo_json(found)


def _named(snapshot: Snapshot, name: str) -> list[Definition]:
    """The objects called `name`, of any kind."""
    objects: list[Any] = [*snapshot.entities.values(), *(rv.view for rv in snapshot.views.values())]
    objects += [*snapshot.services.values(), *snapshot.push_sources.values()]
    objects += snapshot.event_sources.values()
    found: list[Definition] = [o for o in objects if name in (o.name, _with_version(o))]
    if not found:
        raise UnknownObjectError.of("object", name, {_versioned(o) for o in objects})
    return found


def _with_version(obj: Any) -> str:
    return f"{obj.name}@v{getattr(obj, 'version', 1)}"


def _described(store: FeatureStore, obj: Definition) -> dict[str, Any]:
    about: dict[str, Any] = {"kind": kind_of(obj), "hash": content_hash(obj)[:16], **to_dict(obj)}
    registered = next((rv for rv in store.snapshot.views.values() if rv.view == obj), None)
    if isinstance(obj, AggregatedFeatureView):
        about["computed"] = described_features(obj)
        about["online_row"] = described_row(obj)
    if registered is not None and not registered.view.is_stored:
        about["view_id"] = registered.view_id
        about["needs"] = dict(registered.needs)
    elif registered is not None:
        about["join_keys"] = dict(registered.join_keys)
        about["view_id"] = registered.view_id
        about["layouts"] = {
            layout.layout_id: dict(zip(layout.names, map(str, layout.dtypes), strict=True))
            for layout in registered.layouts
        }
        about["materialized"] = _ranges(store, registered)
        about |= _history(store, registered)
        if (reconciled := store.registry.reconciled(registered.view_id)) is not None:
            about["reconciled"] = reconciled
    for name in ("ttl", "max_staleness", "retention", "deadline", "lateness", "budget"):
        value_us = about.pop(f"{name}_us", None)
        if value_us is not None:
            about[name] = format_duration(value_us)
    about |= _datasets(store, obj)
    return about


def _history(store: FeatureStore, registered: RegisteredView) -> dict[str, Any]:
    """The view's offline table: how large, how far back, and when it was put in order; nothing without one."""
    from fastserve.offline.delta import OfflineTable, tended  # noqa: PLC0415  (Delta, for this alone)
    from fastserve.offline.inventory import inventory, totals  # noqa: PLC0415

    table = OfflineTable(store.config.offline_store, store.config.project, registered)
    try:
        with tended(table.uri):
            days = inventory(table.open())
    except OfflineStoreError as error:
        return {"history": {"uri": table.uri, "error": error.message}}
    if not days:
        return {}
    files, size, rows = totals(days)
    shown = {"uri": table.uri, "rows": rows, "files": files, "bytes": size}
    shown |= {"oldest": days[0].day.isoformat(), "newest": days[-1].day.isoformat()}
    done = store.registry.upkeep(registered.view_id)
    times = {"optimized": done.optimized_us, "removed_before": done.removed_before_us}
    return {"history": shown | {name: format_timestamp(us) for name, us in times.items() if us is not None}}


def _datasets(store: FeatureStore, obj: Definition) -> dict[str, Any]:
    """The training data sets made from a view version, with the rows they need; or for a service."""
    if isinstance(obj, FeatureService):
        made = store.list_training_datasets(service=obj.name)
        return {"training_datasets": [d.dataset_id for d in made]} if made else {}
    if not isinstance(obj, FeatureView):
        return {}
    lines = [
        {"id": d.dataset_id, "rows_from": used.origin["kind"], "table_version": used.origin.get("version")}
        for d in store.list_training_datasets(view=obj.name)
        for used in d.views
        if (used.view, used.version) == (obj.name, obj.version)
    ]
    return {"training_datasets": lines} if lines else {}


def echo_tree(value: Any, indent: int = 0) -> None:
    """Nested mappings and lists, indented."""
    pad = "  " * indent
    items = value.items() if isinstance(value, dict) else [("-", item) for item in value]
    for key, item in items:
        if isinstance(item, (dict, list, tuple)) and item:
            click.echo(f"{pad}{key}:" if key != "-" else f"{pad}-")
            echo_tree(item, indent + 1)
        else:
            click.echo(f"{pad}{key}: {item}" if key != "-" else f"{pad}- {item}")


@click.command("status")
@repo_option
@json_option
def status_command(repo: str, as_json: bool) -> None:
    """Registry revision, whether the online store answers, and what is materialized."""
    with FeatureStore(repo) as store:
        snapshot = store.snapshot
        views = {_versioned(rv.view): _ranges(store, rv) for rv in snapshot.stored_views}
        about = {
            "project": store.config.project,
            "registry": {"revision": snapshot.revision, "id": snapshot.registry_id},
            "online_store": _store_health(store.config.online_store),
            "views": views,
        }
    if as_json:
        echo_json(about)
        return
    click.echo(f"project {about['project']}, registry revision {snapshot.revision}")
    click.echo(f"online store: {about['online_store']}")
    rows = [
        (name, target, *span.values())
        for name, targets in views.items()
        for target, spans in targets.items()
        for span in (spans or [{"from": "never", "to": "", "rows_read": ""}])
    ]
    echo_table(("VIEW", "TARGET", "FROM", "TO", "ROWS READ"), rows)


def _ranges(store: FeatureStore, registered: RegisteredView) -> dict[str, list[dict[str, Any]]]:
    """Target -> materialized ranges, both ends included, as `materializer run` takes and reports them.

    The rows are those read, by all runs together: a row read twice is stored once.
    """
    return {
        target: [
            {
                "from": "beginning" if i.start_us is None else format_timestamp(i.start_us),
                "to": format_timestamp(i.end_us - 1),
                "rows_read": i.rows,
            }
            for i in store.registry.intervals(registered.view_id, target)
        ]
        for target in ("online", "offline")
    }


def _store_health(url: str) -> str:
    """`ok`, or why the online store does not answer. Never shows a password."""
    import asyncio  # noqa: PLC0415

    from fastserve.online import open_store  # noqa: PLC0415
    from fastserve.serving.sdk import run_sync  # noqa: PLC0415

    async def probe() -> None:
        store = open_store(url, read_only=True)
        try:
            rows = store.get_many([b"!registry"])
            if isinstance(rows, asyncio.Future):
                await rows
        finally:
            await store.close()

    try:
        run_sync(probe())
    except FastserveError as error:
        return error.message
    return "ok"
