"""`fastserve training-set`: labels in, the same rows with features out; as a plain file, or as a data set kept."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastserve.cli.options import echo_json, echo_table, json_option, parse_moment, repo_option
from fastserve.errors import RequestError
from fastserve.store import FeatureStore
from fastserve.timeutil import format_timestamp
from materializer.options import engine_options, work_option

if TYPE_CHECKING:
    from fastserve.registry import TrainingDataset


@click.group("training-set")
def training_set_command() -> None:
    """Join features to labels, point in time; keep the result so that it can be made again to the byte."""


@training_set_command.command("create")
@repo_option
@json_option
@click.option(
    "--spine", required=True, metavar="FILE", help="Labels: join keys, time, label columns (Parquet or CSV)."
)
@click.option("--name", default="", help="Keep it as a data set of this name, with a manifest.")
@click.option(
    "--output",
    default="",
    metavar="PATH",
    help="With --name the directory to make, by default one in the repo; without, a .parquet or .csv file.",
)
@click.option("--service", default=None, help="A feature service, instead of references.")
@click.option("--timestamp-column", default="event_timestamp", show_default=True)
@click.option("--cutoff", default=None, metavar="TIME|label-time", help="Only rows known by then.")
@click.option("--full-feature-names", is_flag=True, help="Name features view__feature.")
@click.option("--allow-incomplete", is_flag=True, help="Train although not all history is materialized.")
@click.option("--memory", default=None, metavar="SIZE", help="The process may hold no more, e.g. 1.5GiB.")
@click.option("--threads", type=click.IntRange(1), default=None, help="That join; by default one a core.")
@engine_options
@work_option
@click.argument("features", nargs=-1)
def create_command(repo: str, as_json: bool, name: str, output: str, **options: Any) -> None:
    """N rows in, N rows out, in their order, with FEATURES (view:feature) or those of --service."""
    if not name and Path(output).suffix not in (".parquet", ".csv"):
        raise RequestError(
            f"{output!r} is neither .parquet nor .csv",
            where="--output",
            hint="or keep a data set with a manifest: --name NAME",
        )
    if bool(options["features"]) == bool(options["service"]):
        raise RequestError(
            "name either features or --service",
            hint="fastserve training-set create view:feature --spine FILE --output FILE",
        )
    cutoff = options.pop("cutoff")
    options["cutoff"] = "label_time" if cutoff == "label-time" else _moment(cutoff)
    options["features"] = list(options["features"]) or None
    options["progress"] = True
    spine = options.pop("spine")
    with FeatureStore(repo) as store:
        summary = (_keep if name else _join)(store, spine, name, output, options)
    if as_json:
        echo_json(summary)
    elif name:
        click.echo(f"made {summary['id']}: {summary['rows']:,} rows in {summary['uri']}")
    else:
        click.echo(f"wrote {summary['rows']:,} rows x {len(summary['columns'])} columns to {output}")


def _keep(store: FeatureStore, spine: str, name: str, output: str, options: dict[str, Any]) -> dict[str, Any]:
    made = store.create_training_dataset(spine, name, output=output, author=_login(), **options)
    return _line(store.registry.training_dataset(made.id))


def _join(
    store: FeatureStore, spine: str, _name: str, output: str, options: dict[str, Any]
) -> dict[str, Any]:
    from materializer.datasets.labels import read_labels  # noqa: PLC0415

    made = store.get_historical_features(read_labels(spine, store.snapshot.key_columns()), **options)
    write_rows(made.schema, made.batches(), output)
    return {"rows": len(made), "columns": made.schema.names, "output": output}


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


@training_set_command.command("list")
@repo_option
@json_option
@click.option("--view", default="", help="Only those that read this view.")
@click.option("--service", default="", help="Only those made for this service.")
def list_command(repo: str, as_json: bool, view: str, service: str) -> None:
    """The data sets that were kept, newest first."""
    with FeatureStore(repo) as store:
        found = [_line(dataset) for dataset in store.list_training_datasets(view=view, service=service)]
    if as_json:
        echo_json(found)
        return
    if not found:
        click.echo("no training data sets yet; `fastserve training-set create --name NAME` makes one")
        return
    rows = [
        (d["id"], d["created_at"], d["rows"], d["service"], d["schema_fingerprint"], d["uri"]) for d in found
    ]
    echo_table(("ID", "CREATED", "ROWS", "SERVICE", "SCHEMA", "PLACE"), rows)


def _line(dataset: TrainingDataset) -> dict[str, Any]:
    return {
        "id": dataset.dataset_id,
        "name": dataset.name,
        "service": dataset.service,
        "rows": dataset.rows,
        "schema_fingerprint": dataset.fingerprint,
        "created_at": format_timestamp(dataset.created_us),
        "author": dataset.author,
        "uri": dataset.uri,
        "views": [f"{used.view}@v{used.version}" for used in dataset.views],
    }


@training_set_command.command("show")
@repo_option
@json_option
@click.argument("dataset")
def show_command(repo: str, as_json: bool, dataset: str) -> None:
    """The manifest of DATASET: an id, a name (its newest) or a directory."""
    from fastserve.cli.show import echo_tree  # noqa: PLC0415

    with FeatureStore(repo) as store:
        manifest = store.get_training_dataset(dataset).manifest.to_dict()
    if as_json:
        echo_json(manifest)
    else:
        echo_tree(manifest)


@training_set_command.command("verify")
@repo_option
@json_option
@click.argument("dataset")
def verify_command(repo: str, as_json: bool, dataset: str) -> None:
    """Make DATASET again and compare the bytes; exit code 0 when equal, 1 when not."""
    with FeatureStore(repo) as store:
        report = store.verify_training_dataset(dataset)
    if as_json:
        echo_json(report.to_dict())
    else:
        click.echo(str(report))
    if not report.ok:
        sys.exit(1)


def write_rows(schema: Any, batches: Iterable[Any], path: str) -> None:
    """Write beside the target and rename: a reader never sees half a file."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv  # noqa: PLC0415

    from materializer.datasets.content import parquet_writer  # noqa: PLC0415

    part = Path(path).with_name(f".{Path(path).name}.part")
    try:
        is_csv = path.endswith(".csv")
        with csv.CSVWriter(part, schema) if is_csv else parquet_writer(part, schema, "snappy") as to:
            for batch in batches:
                to.write_batch(batch)
        part.replace(path)
    except OSError as error:
        raise RequestError(f"cannot be written: {error}", where=path) from None
    except pa.ArrowInvalid as error:  # a list has no place in CSV
        raise RequestError(f"cannot be written: {error}", where=path, hint="write .parquet") from None
    finally:
        with suppress(OSError):  # what kept us from writing may keep us from removing
            part.unlink(missing_ok=True)


def _moment(text: str | None) -> int | None:
    try:
        return parse_moment(text, "--cutoff")
    except RequestError as error:
        raise RequestError(error.message, where=error.where, hint="or write label-time") from None
