"""Streams of events into tile rows, each event's effect exactly once. START HERE, then worker.py.

    producer   events -> checked, dealt out by entity into shards -> entries of a log       producer.py, entries.py
    worker     reads a shard's log from the shard's own offset; what it makes of an entry moves with that offset in one
               transaction of the online store                                              worker.py, applying.py

A *feed* is the events of one source, dealt out by the join keys of the views over it (feeds.py). A *shard* of it is one
log, read in its order, and one state: who owns it, how far it was read, the newest event time (state.py). It has one
owner at a time; whoever takes it over raises its epoch, and what the owner before still tries fails. So a worker may be
killed anywhere: the next one reads on where the last transaction left off.
"""
