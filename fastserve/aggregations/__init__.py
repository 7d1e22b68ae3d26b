"""Windowed aggregations as algebra: states that merge in any order, tiles of them, and values folded out of tiles.

One definition for history, streams and reads: `program.py` says what a view needs, `states` how each function is
prepared, updated, merged and finalized, `hops.py` where windows and tiles begin and end.
"""
