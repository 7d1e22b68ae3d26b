"""Work cut into tasks that run anywhere: what goes in and comes out are files that driver and workers see.

    near.py   tasks on an engine, but for those that only this process can do
    deal.py   pieces of a view's rows  ->  one file, its rows dealt out by a function of the row
    shard.py  labels of a shard and its rows  ->  one file of the values that labels have
    join.py   both, for a whole training set, on any engine

A task names its file anew each time it runs. One that is lost is run again; what it left half-written nobody names.
"""
