"""Are answers that were served what history says? Rebuild them, compare bytes, explain. START AT run.py.

draw.py      entities to ask for, drawn from the history of what is asked
rebuild.py   the values of answers, made again from history by the path that training sets take
same.py      which values are the same bytes
newest.py    the newest row of entities in a view's history: of all, and of those known by the answer's time
explain.py   why a value differs
report.py    what is told

`materializer.datasets` has a `verify` too: of data sets, made again from what their manifests noted.
"""
