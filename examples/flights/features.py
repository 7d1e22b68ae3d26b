"""What was known of a flight before it left: its carrier, its airports, its route, the weather, the aircraft.

`prepare.py` computes the source tables. Each row has the time from which it holds (event_timestamp) and the time at
which it was known (created_timestamp); a training set with cutoff="label_time" uses only what was known then.
"""

from fastserve import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float64,
    Int32,
    Int64,
    String,
)

carrier = Entity("carrier", description="airline, by its two-letter code")
origin = Entity("origin", description="airport of departure, by its IATA code")
tailnum = Entity("tailnum", description="aircraft, by its tail number")
route = Entity("route", join_keys=["origin", "dest"], description="from one airport to another")

carrier_delay = FeatureView(
    "carrier_delay",
    entities=[carrier],
    schema=[
        Field("arrivals_24h", Int64, default=0, description="flights landed in the last 24 hours"),
        Field("mean_arr_delay_24h", Float64, description="their mean arrival delay, minutes"),
        Field("late_share_24h", Float64, description="share that was over 15 minutes late"),
    ],
    source=FileSource("data/carrier_delay.parquet", created_timestamp_column="created_timestamp"),
    ttl="3h",
    owner="ops",
)

origin_delay = FeatureView(
    "origin_delay",
    entities=[origin],
    schema=[
        Field("departures_3h", Int64, default=0, description="flights that left in the last 3 hours"),
        Field("mean_dep_delay_3h", Float64, description="their mean departure delay, minutes"),
        Field("max_dep_delay_3h", Float64, description="the worst of them, minutes"),
    ],
    source=FileSource("data/origin_delay.parquet", created_timestamp_column="created_timestamp"),
    ttl="2h",
    owner="ops",
)

route_delay = FeatureView(
    "route_delay",
    entities=[route],
    schema=[
        Field("arrivals_7d", Int64, default=0, description="flights of the route landed in 7 days"),
        Field("mean_arr_delay_7d", Float64, description="their mean arrival delay, minutes"),
        Field("distance", Float64, description="miles"),
    ],
    source=FileSource("data/route_delay.parquet", created_timestamp_column="created_timestamp"),
    ttl="2d",
    owner="ops",
)

weather = FeatureView(
    "weather",
    entities=[origin],
    schema=[
        Field("temp", Float64, description="degrees Fahrenheit"),
        Field("humid", Float64, description="relative humidity, percent"),
        Field("wind_speed", Float64, description="miles an hour"),
        Field("wind_gust", Float64, description="miles an hour; null without gusts"),
        Field("precip", Float64, description="inches in the hour"),
        Field("pressure", Float64, description="millibar; often missing"),
        Field("visib", Float64, description="miles"),
    ],
    source=FileSource("data/weather.parquet", created_timestamp_column="created_timestamp"),
    ttl="3h",
    owner="meteo",
)

plane = FeatureView(
    "plane",
    entities=[tailnum],
    schema=[
        Field("built", Int32, description="year of manufacture"),
        Field("seats", Int32),
        Field("engines", Int32),
        Field("manufacturer", String, default="unknown"),
    ],
    source=FileSource("data/plane.parquet", created_timestamp_column="created_timestamp"),
    owner="fleet",
)

departure_delay = FeatureService(
    "departure_delay",
    features=[
        carrier_delay,
        origin_delay,
        route_delay,
        weather[["temp", "wind_speed", "wind_gust", "precip", "pressure", "visib"]],
        plane,
    ],
    description="everything the arrival-delay model reads at scheduled departure",
    owner="ml",
)
