"""Labels from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, fs, parquet

from fastserve.errors import InvalidDataError
from fastserve.types import arrow_type, parse_dtype


def read_labels(path: str, key_types: Mapping[str, str], repo: Path | None = None) -> pa.Table:
    """A Parquet or CSV file, local or by URL; in CSV a join key is read as the type it was declared with.

    Args:
        key_types: column -> type, as `Snapshot.key_columns` gives them.
        repo: what a relative path is relative to; None for the working directory.

    Raises:
        InvalidDataError: the file is missing or not readable as what its ending says.
    """
    try:
        if "://" in path:
            filesystem, name = fs.FileSystem.from_uri(path)
        else:
            filesystem, name = fs.LocalFileSystem(), str((repo or Path()) / path)
        with filesystem.open_input_file(name) as file:
            if not name.endswith(".csv"):
                return parquet.read_table(file)
            # Guessing types would make 7 of the string "007".
            types = {column: arrow_type(parse_dtype(dtype)) for column, dtype in key_types.items()}
            return csv.read_csv(file, convert_options=csv.ConvertOptions(column_types=types))
    except (OSError, pa.ArrowException) as error:
        raise InvalidDataError(f"cannot be read: {error}", where=path, hint="give .parquet or .csv") from None
