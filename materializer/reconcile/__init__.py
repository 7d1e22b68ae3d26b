"""Is what is online what history says? Compare the two, say how they differ, and put it right. START AT run.py.

truth.py    the newest row of every key in the history, as the online store should hold it
shards.py   rows by the hash of their keys, on disk: memory follows neither history nor store
judge.py    what is wrong with one key, if anything
looks.py    two looks at the store, what they found, and the repair
report.py   what is told
"""
