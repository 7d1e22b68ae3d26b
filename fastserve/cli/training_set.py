"""`fastserve training-set`: a file of labels in, the same rows with features out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from fastserve.cli.get import key_types
from fastserve.cli.options import echo_json, json_option, parse_moment, repo_option
from fastserve.errors import InvalidDataError, RequestError
from fastserve.store import FeatureStore


@click.command("training-set")
@repo_option
@json_option
@click.option(
    "--spine", required=True, metavar="FILE", help="Labels: join keys, time, label columns (Parquet or CSV)."
)
@click.option("--output", required=True, metavar="FILE", help="Where to write (.parquet or .csv).")
@click.option("--service", default=None, help="A feature service, instead of references.")
@click.option("--timestamp-column", default="event_timestamp", show_default=True)
@click.option("--cutoff", default=None, metavar="TIME|label-time", help="Only rows known by then.")
@click.option("--full-feature-names", is_flag=True, help="Name features view__feature.")
@click.option("--allow-incomplete", is_flag=True, help="Train although not all history is materialized.")
@click.argument("features", nargs=-1)
def training_set_command(
    repo: str, as_json: bool, spine: str, output: str, features: tuple[str, ...], **options: Any
) -> None:
    """Join features to labels, point in time: N rows in, N rows out, in their order."""
    if Path(output).suffix not in (".parquet", ".csv"):
        raise RequestError(f"{output!r} is neither .parquet nor .csv", where="--output")
    if bool(features) == bool(options["service"]):
        raise RequestError(
            "name either features or --service",
            hint="fastserve training-set view:feature --spine FILE --output FILE",
        )
    cutoff = options.pop("cutoff")
    with FeatureStore(repo) as store:
        made = store.get_historical_features(
            read_table(spine, key_types(store.snapshot)),
            list(features) if features else None,
            cutoff="label_time" if cutoff == "label-time" else _moment(cutoff),
            **options,
        )
    table = made.to_arrow()
    write_table(table, output)
    summary = {"rows": table.num_rows, "columns": table.column_names, "output": output}
    if as_json:
        echo_json(summary)
    else:
        click.echo(f"wrote {table.num_rows:,} rows x {table.num_columns} columns to {output}")


def read_table(path: str, key_types: Mapping[str, str]) -> Any:
    """A Parquet or CSV file as an Arrow table; in CSV a join key is read as the type it was declared with.

    Raises:
        InvalidDataError: the file is missing or not readable as what its ending says.
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv, parquet  # noqa: PLC0415

    from fastserve.types import arrow_type, parse_dtype  # noqa: PLC0415

    try:
        if not path.endswith(".csv"):
            return parquet.read_table(path)
        # Guessing types would make 7 of the string "007".
        types = {column: arrow_type(parse_dtype(dtype)) for column, dtype in key_types.items()}
        return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types))
    except (OSError, pa.ArrowException) as error:
        raise InvalidDataError(f"cannot be read: {error}", where=path, hint="give .parquet or .csv") from None


def write_table(table: Any, path: str) -> None:
    """Write beside the target and rename: a reader never sees half a file."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv, parquet  # noqa: PLC0415

    part = Path(path).with_name(f".{Path(path).name}.part")
    try:
        if path.endswith(".csv"):
            csv.write_csv(table, part)
        else:
            parquet.write_table(table, part)
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
