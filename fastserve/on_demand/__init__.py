"""On-demand features: what a function of the repo is given and may give back, and helpers for it to use.

`from fastserve.on_demand import hours_since, haversine_km` in a repo; `call.py` calls a function, `functions.py` finds
the one that is registered.
"""

from fastserve.on_demand.helpers import day_of_week, haversine_km, hour_of_day, hours_since, ratio

__all__ = ["day_of_week", "haversine_km", "hour_of_day", "hours_since", "ratio"]
