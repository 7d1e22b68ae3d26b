"""How a run moves a view's rows: first all of its window are read, then they are written date by date.

base      what both ways have in common
here      in this process: a spill, then date after date
spread    by the tasks of an engine: read tasks deal rows out by date into files, write tasks write them (tasks.py)
"""
