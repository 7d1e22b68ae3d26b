"""What a command does not load, and that a user's code gets what it would have anywhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def said(code: str) -> str:
    """What a fresh interpreter prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    return done.stdout.strip()


def test_arrow_comes_without_pandas() -> None:
    code = """
import gc, sys
from fastserve.loading import loading
with loading():
    import pyarrow.dataset
    assert not gc.isenabled()
assert gc.isenabled() and gc.get_freeze_count()
import pyarrow as pa
pa.array([1, 2]), pa.scalar(True)
print("pandas" in sys.modules, "pyarrow.dataset" in sys.modules)
"""
    assert said(code) == "False True"


def test_pandas_is_back_for_a_users_code() -> None:
    code = """
from fastserve.loading import loading, show_pandas
with loading():
    import pyarrow as pa
show_pandas()
import pandas as pd
series = pd.Series([1.5, float("nan")])
print(pa.array(series).null_count, pa.table(pd.DataFrame({"a": series})).num_columns)
"""
    assert said(code) == "1 1"


def test_pandas_may_be_imported_meanwhile_and_afterwards() -> None:
    """What is loaded within has Arrow without pandas; whoever imports it later gets it."""
    code = """
from fastserve.loading import loading
with loading():
    import pyarrow as pa
    try:
        import pandas
    except ModuleNotFoundError as error:
        print(error.name)
import pandas
print(pandas.Series([1]).sum())
"""
    assert said(code) == "pandas\n1"


def test_what_fails_within_leaves_nothing_behind() -> None:
    code = """
import gc, sys
from fastserve.loading import loading
finders = list(sys.meta_path)
try:
    with loading():
        import no_such_module
except ModuleNotFoundError:
    print(gc.isenabled(), sys.meta_path == finders)
import pandas
"""
    assert said(code) == "True True"


def test_a_process_that_has_arrow_stays_as_it_is() -> None:
    code = """
import pyarrow as pa
from fastserve.loading import loading
import gc
with loading():
    assert gc.isenabled()
    import pandas as pd
print(pa.array(pd.Series([1.5, float("nan")])).null_count, gc.get_freeze_count())
"""
    assert said(code) == "1 0"
