"""Values of windows at labels' times, from raw events: the tiles' own states, folded over the events themselves.

rows of events    ->  those that count, by entity and time      events.py
events, labels    ->  of each window its range of events        ranges_py.py
ranges            ->  states, values                            the algebra of fastserve.aggregations
"""
