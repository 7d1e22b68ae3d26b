"""Windowed aggregations as algebra: states that merge in any order, tiles of them, and values folded out of tiles.

One definition for history, streams and reads: `program.py` says what a view needs, `states_py.py` how each
function is updated and merged, `finals_py.py` its value, `hops.py` where windows and tiles begin and end.
"""
