"""`fastserve get` and `fastserve inspect`."""

from __future__ import annotations

from typing import Any

import click

from fastserve.cli.options import echo_json, echo_table, json_option, parse_moment, repo_option
from fastserve.errors import InvalidEntityError, RequestError
from fastserve.registry import Snapshot
from fastserve.store import FeatureStore
from fastserve.timeutil import now_us

_entity = click.option(
    "-e", "--entity", "entities", multiple=True, metavar="KEY=V[,V...]", help="A join key and its values."
)
_BOOLS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_now = click.option("--now", "moment", default=None, metavar="TIME", help="Answer for this instant.")


@click.command("get")
@repo_option
@json_option
@click.option("--service", default=None, help="A feature service, instead of references.")
@_entity
@_now
@click.option("--full-feature-names", is_flag=True, help="Name features view__feature.")
@click.argument("features", nargs=-1)
def get_command(
    repo: str,
    as_json: bool,
    service: str | None,
    entities: tuple[str, ...],
    moment: str | None,
    full_feature_names: bool,
    features: tuple[str, ...],
) -> None:
    """Read online features: `fastserve get view:a view:b -e user_id=1,2`."""
    if bool(features) == bool(service):
        raise RequestError(
            "name either features or --service", hint="fastserve get view:feature -e key=value"
        )
    with FeatureStore(repo) as store:
        columns = parse_entities(entities, key_types(store.snapshot))
        answer = store.get_online_features(
            list(features) if features else None,
            columns,
            service=service,
            full_feature_names=full_feature_names,
            now=parse_moment(moment, "--now"),
        )
    values, statuses = answer.to_dict(), answer.statuses()
    if as_json:
        from fastserve.api.json_answer import json_value  # noqa: PLC0415

        plain = {name: [json_value(v) for v in column] for name, column in values.items()}
        echo_json({"values": plain, "statuses": statuses})
        return
    names = list(values)
    rows = [
        [_cell(values[name][i], statuses.get(name, [""] * (i + 1))[i]) for name in names]
        for i in range(answer.batch.n)
    ]
    echo_table(names, rows)


@click.command("inspect")
@repo_option
@json_option
@_entity
@_now
@click.argument("view")
def inspect_command(
    repo: str, as_json: bool, entities: tuple[str, ...], moment: str | None, view: str
) -> None:
    """Decode what the online store holds for one entity of VIEW (or VIEW@v2)."""
    from fastserve.serving.inspect import inspect_row  # noqa: PLC0415

    with FeatureStore(repo) as store:
        name, at, version = view.partition("@v")
        if at and not version.isdecimal():
            raise RequestError(f"{view!r} names no version", where="VIEW", hint="write VIEW, or VIEW@v2")
        registered = store.snapshot.view(name, int(version) if at else None)
        registered.check_stored("VIEW")
        columns = parse_entities(entities, dict(registered.join_keys))
        now = parse_moment(moment, "--now")
        found = inspect_row(store.config.online_store, registered, columns, now_us() if now is None else now)
    if as_json:
        echo_json(found)
        return
    for label, value in found.items():
        if isinstance(value, dict):
            click.echo(f"{label}:")
            for key, item in value.items():
                click.echo(f"  {key}: {item}")
        else:
            click.echo(f"{label}: {value}")


def parse_entities(options: tuple[str, ...], key_types: dict[str, str]) -> dict[str, list[Any]]:
    """``user_id=1,2`` options as columns of the join keys' types.

    Raises:
        InvalidEntityError: no `=`, or a value is not of the key's type.
    """
    columns: dict[str, list[Any]] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals:
            raise InvalidEntityError(f"{option!r} has no value", where="--entity", hint="write KEY=VALUE")
        values = [_key_value(name, part, key_types.get(name, "string")) for part in text.split(",")]
        columns.setdefault(name, []).extend(values)
    return columns


def _key_value(name: str, text: str, key_type: str) -> Any:
    try:
        if key_type == "int64":
            return int(text)
    except ValueError:
        raise InvalidEntityError(f"{text!r} is no integer", where=f"--entity {name}") from None
    if key_type == "bool":
        if text.lower() not in _BOOLS:
            raise InvalidEntityError(
                f"{text!r} is neither true nor false", where=f"--entity {name}", hint="write true or false"
            )
        return _BOOLS[text.lower()]
    return text.encode() if key_type == "bytes" else text


def key_types(snapshot: Snapshot) -> dict[str, str]:
    """Join key -> type over the whole registry, and the columns that services map them to."""
    return snapshot.key_columns()


def _cell(value: Any, status: str) -> str:
    if status in ("", "PRESENT"):
        return str(value)
    return f"{value} ({status})" if value is not None else status
