"""Scripts that run the entries of the native modules 100,000 times, each in a process of its own (test_leaks.py).

A script's NATIVES are the modules of _ext/ that it is about; its `once` takes the number of the iteration.
"""
