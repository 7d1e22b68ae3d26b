"""Coverage-guided fuzzing of what reads bytes of others (`make fuzz`), and its corpus replayed as a test.

targets.py     name -> a function of bytes that raises when something is wrong
corpus/*.txt   what libFuzzer found worth keeping, an input a line (corpus.py)
driver.c       libFuzzer around a Python interpreter, for natives with its coverage inside
__main__.py    unpack, run, and keep what is new
"""
