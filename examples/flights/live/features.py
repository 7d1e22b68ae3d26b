"""Delays over the last hours, of airports and of airlines: windows over departures, which come by a stream."""

from fastserve import (
    AggregatedFeatureView,
    Aggregation,
    Entity,
    EventSource,
    FeatureService,
    Field,
    FileSource,
    Float64,
    String,
)

origin = Entity("origin", description="airport of departure, by its IATA code")
carrier = Entity("carrier", description="airline, by its two-letter code")

departures = EventSource(
    "departures",
    FileSource("data/departures.parquet", created_timestamp_column="created_timestamp"),
    schema=[Field("dep_delay", Float64, description="minutes"), Field("dest", String)],
    event_id="flight_id",
    lateness="30m",
    description="a flight left its gate, at event_timestamp",
    owner="ops",
)

origin_now = AggregatedFeatureView(
    "origin_now",
    entities=[origin],
    source=departures,
    aggregations=[
        Aggregation("*", "count", windows=["1h", "3h"], name="departures"),
        Aggregation("dep_delay", "mean", windows=["1h", "3h"], name="mean_delay"),
        Aggregation("dep_delay", "max", windows=["3h"], name="worst_delay_3h"),
        Aggregation("dest", "last_n", n=3, windows=["1h"], name="last_dests"),
    ],
    owner="ops",
)

carrier_now = AggregatedFeatureView(
    "carrier_now",
    entities=[carrier],
    source=departures,
    aggregations=[
        Aggregation("*", "count", windows=["24h"], name="carrier_departures_24h"),
        Aggregation("dep_delay", "mean", windows=["3h", "24h"], name="carrier_mean_delay"),
        Aggregation(
            "dep_delay", "approx_quantile", quantile=0.9, windows=["24h"], name="carrier_p90_delay_24h"
        ),
    ],
    owner="ops",
)

delay_now = FeatureService(
    "delay_now",
    features=[origin_now, carrier_now],
    description="how late flights leave just now",
    owner="ml",
)
