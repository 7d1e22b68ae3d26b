"""Delays as they happen: a day and a half of November 2013 go through a stream again, at any speed.

What happened before START is the batch source; from then on each departure is pushed when it became known, SPEED
seconds of 2013 in one of ours. One in thirty becomes known hours late, after the source's lateness: the stream leaves
it out, and the run of the night puts it in. `make demo-live` runs it; each `$` line is a command to type yourself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable

from fastserve import FeatureStore

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from prepare import flights  # noqa: E402

SERVICE = "delay_now"
START = pd.Timestamp("2013-11-26T10:00:00Z")  # 5 in the morning in New York, two days before Thanksgiving
BEFORE = pd.Timedelta("3D")  # the longest window is full
LATE = pd.Timedelta("4h")
COLUMNS = ["flight_id", "origin", "carrier", "dest", "dep_delay", "event_timestamp", "created_timestamp"]


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def tool(name: str) -> str:
    return shutil.which(name, path=str(Path(sys.executable).parent)) or name


def shell(*command: str) -> str:
    """Run a command of this installation as a user would, and show it."""
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run(
        [tool(command[0]), *command[1:]], cwd=HERE, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}exit code {done.returncode}")
    return done.stdout


@contextmanager
def worker() -> Iterator[None]:
    """`fastserve stream run`, until SIGTERM."""
    print("$ fastserve stream run &", flush=True)
    words = [tool("fastserve"), "stream", "run", "--json"]
    process = subprocess.Popen(words, cwd=HERE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if not process.stdout.readline():
            sys.exit(f"fastserve stream run: exit code {process.wait(20)}")
        yield
    finally:
        process.terminate()
        print(f"stream stopped with exit code {process.wait(20)}")


def moment(at: pd.Timestamp) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def departures(until: pd.Timestamp) -> pd.DataFrame:
    """Departures from BEFORE START on, in the order in which they became known."""
    table = flights().dropna(subset=["departed"]).rename(columns={"departed": "happened"})
    day = table["event_timestamp"].dt.strftime("-%j-%H%M-")
    table["flight_id"] = table["carrier"] + table["flight"].astype(str) + day + table["origin"]
    known = table["happened"].where(np.arange(len(table)) % 30 > 0, table["happened"] + LATE)
    table = table.assign(event_timestamp=table["happened"], created_timestamp=known)
    table = table[(table["happened"] > START - BEFORE) & (table["created_timestamp"] <= until)]
    return table.sort_values("created_timestamp", kind="stable", ignore_index=True)[COLUMNS]


def replay(store: FeatureStore, coming: pd.DataFrame, until: pd.Timestamp, speed: float) -> None:
    """Push each departure when it is known, and show now and then what the windows say; with speed 0 at once."""
    begin, pushed, shown = time.monotonic(), 0, START
    while pushed < len(coming) or shown < until:
        ahead = pd.Timedelta(seconds=(time.monotonic() - begin) * speed)
        now = until if not speed else min(START + ahead.floor("s"), until)
        due = int((coming["created_timestamp"] <= now).sum())
        if due > pushed:
            store.push("departures", coming.iloc[pushed:due])
            pushed = due
        if now >= min(shown + pd.Timedelta("6h"), until):
            shown = now
            if now < until:
                show(store, now)
        time.sleep(0.02 if speed else 0)


def show(store: FeatureStore, now: pd.Timestamp) -> None:
    names = ["departures_1h", "mean_delay_1h", "worst_delay_3h"]
    found = store.get_online_features(
        [f"origin_now:{name}" for name in names], {"origin": ["EWR", "JFK", "LGA"]}, now=now
    ).to_dict()
    cells = [
        f"{origin}: {count} in the hour, {mean or 0:5.1f} min late, at worst {worst or 0:4.0f}"
        for origin, count, mean, worst in zip(found["origin"], *(found[name] for name in names), strict=True)
    ]
    print(f"  {now:%d %b %H:%M}  {'; '.join(cells)}", flush=True)


def wait(events: int) -> None:
    """Return when all events that were pushed are in the windows, or left out, and in history."""
    deadline = time.monotonic() + 60
    root = HERE / ".fastserve" / "offline" / "flights_live" / ".events" / "departures"
    tables = [str(root / key) for key in ("carrier", "origin")]
    while time.monotonic() < deadline:
        done = subprocess.run(
            [tool("fastserve"), "stream", "status", "--json"], cwd=HERE, stdout=subprocess.PIPE, check=True
        )
        read = sum(shard.get("events", 0) for shard in json.loads(done.stdout))
        if read >= 2 * events and all(map(DeltaTable.is_deltatable, tables)):
            if all(DeltaTable(one).to_pyarrow_dataset().count_rows() >= events for one in tables):
                return
        time.sleep(0.1)
    sys.exit(f"the worker did not apply and append {events} events in 60 s")


def differing(store: FeatureStore, table: pd.DataFrame, now: pd.Timestamp) -> tuple[int, int]:
    """How many values online are other than training's of that moment, of how many."""
    pairs = table[["origin", "carrier"]].drop_duplicates().sort_values(["origin", "carrier"])
    keys = {name: pairs[name].tolist() for name in pairs}
    spine = pa.table(keys | {"event_timestamp": pa.array([now] * len(pairs), pa.timestamp("us", "UTC"))})
    trained = store.get_historical_features(spine, service=SERVICE).to_arrow().to_pydict()
    served = store.get_online_features(service=SERVICE, entity_rows=keys, now=now).to_dict()
    names = [name for name in trained if name not in spine.column_names]
    wrong = sum(a != b for name in names for a, b in zip(trained[name], served[name], strict=True))
    return wrong, len(names) * len(pairs)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--speed", type=float, default=7_200, help="seconds of 2013 in a second; 0: as fast as it goes"
    )
    options.add_argument("--hours", type=float, default=36, help="of 2013 to be replayed")
    args = options.parse_args()
    for name in (".fastserve", "data"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    os.chdir(HERE)
    until = START + pd.Timedelta(hours=args.hours)
    table = departures(until)
    history = table["created_timestamp"] <= START
    (HERE / "data").mkdir()
    table[history].to_parquet(HERE / "data" / "departures.parquet", index=False)
    coming = table[~history]

    say(f"{history.sum():,} departures of the days before {START:%d %B %Y, %H:%M} UTC are history")
    print(shell("fastserve", "apply").splitlines()[-1])
    shell("materializer", "run", "--incremental", "--now", moment(START))

    say(f"{len(coming):,} more come by stream, {args.hours:g} hours at {args.speed:g} times their speed")
    with FeatureStore(HERE) as store, worker():
        replay(store, coming, until, args.speed)
        wait(len(coming))
        show(store, until)
        late, values = differing(store, table, until)
        say(
            f"online beside training: {late} of {values} values differ, for what became known hours late was left out"
        )

        say("history goes online beside the stream, which goes on")
        summary = json.loads(shell("materializer", "run", "--incremental", "--now", moment(until)))
        for view in summary["views"]:
            print(
                f"  {view['view']}: {view['rows_read']:,} events read, {view['rows_online_written']} rows put right"
            )
        left, _ = differing(store, table, until)
        print(f"online beside training: {left} of {values} values differ")
        print(shell("fastserve", "verify", "--service", SERVICE, "--now", moment(until)), end="")
    sys.exit(0 if late and not left else 1)


if __name__ == "__main__":
    main()
