"""Both implementations under the same tests."""

from __future__ import annotations

import importlib
import os
from types import SimpleNamespace

import pytest


@pytest.fixture(params=["py", "native"], scope="module")
def twin(request: pytest.FixtureRequest) -> SimpleNamespace:
    """TileBuilder, TileSplicer, Folder, and the ReadBatch and RowDecoder that go with them."""
    if request.param == "py":
        names = (
            "aggregations.build_py",
            "aggregations.splice_py",
            "aggregations.fold_py",
            "batch.batch_py",
            "codec.rows_py",
        )
    elif os.environ.get("FASTSERVE_NO_EXTENSIONS") == "1":
        pytest.skip("a pure-Python install")
    else:
        names = (
            "_native.tile_build",
            "_native.tile_splice",
            "_native.tile_fold",
            "_native.batch",
            "_native.rows",
        )
    build, splice, fold, batch, rows = (importlib.import_module(f"fastserve.{name}") for name in names)
    return SimpleNamespace(
        TileBuilder=build.TileBuilder,
        TileSplicer=splice.TileSplicer,
        Folder=fold.Folder,
        ReadBatch=batch.ReadBatch,
        RowDecoder=rows.RowDecoder,
    )
