"""Where tasks run: in this process, in processes of its own, on Spark. START at base.py.

A task is a function of a module and its arguments, all of which can be pickled. Its inputs and outputs are files and
stores that every worker and the driver see. It may be run again: whoever runs it may die at any moment.

base        Engine: a concurrent.futures.Executor with slots; run_tasks keeps them busy
inside      what a task finds where it runs: a Stop, and what is kept from task to task
processes   this process, or several of its own
spark       a SparkContext; the only module that imports pyspark
opening     --engine and --master -> an Engine
reach       which stores tasks on other machines can reach
"""

from __future__ import annotations

from materializer.engine.base import Engine, run_tasks
from materializer.engine.opening import check_engine, open_engine

__all__ = ["Engine", "check_engine", "open_engine", "run_tasks"]
