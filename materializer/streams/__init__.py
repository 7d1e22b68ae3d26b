"""Streams of events on Spark: `fastserve stream run --engine spark`. START HERE, then runner.py.

    runner    on the driver: has all shards, like a worker that is alone; a flow for each feed    runner.py
    flow      a streaming query: entries of the feed's logs, batch after batch                    flow.py
    source    the logs as a Python data source: which entries there are, and these               source.py
              or Spark's own connector, where logs are in Kafka                                  kafka.py
    tasks     on the executors: what entries make of a shard, by the worker's own code           tasks.py

A batch of Spark's is no unit of anything. A shard's state says how far its log was applied, and moves with the rows in
one transaction (fastserve/streaming/applying.py), of which a batch has many. So no batch id is kept: entries that come
again, because a task or a batch is repeated or a checkpoint is old, lie before the state's offset and change nothing.
"""
