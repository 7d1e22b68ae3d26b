"""One Spark cluster for all tests here: two executors of one core, processes of their own, on loopback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.integration.streaming.conftest import client, kafka, kept, server  # noqa: F401  (fixtures)

ROOT = Path(__file__).parents[2]
MASTER = "local-cluster[2,1,1024]"
SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.showConsoleProgress": "false",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.spark)
            if find_spec("pyspark") is None:
                item.add_marker(pytest.mark.skip(reason="pyspark is not installed: make spark"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The SparkContext, active: what a notebook has."""
    import pyspark

    environ = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        conf = pyspark.SparkConf().setMaster(MASTER).setAppName("tests").setAll(list(SETTINGS.items()))
        conf.set("spark.local.dir", str(tmp_path_factory.mktemp("spark")))
        context = pyspark.SparkContext(conf=conf)
    context.setLogLevel("OFF")  # executors are killed here, and it would tell at length
    context.environment["PYTHONPATH"] = os.fspath(ROOT)  # of the tests' own tasks
    yield context
    context.stop()
