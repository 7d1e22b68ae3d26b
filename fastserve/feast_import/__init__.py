"""From a Feast repo to a fastserve repo.

dump.py       runs where `feast` is installed: repo -> JSON. It imports nothing of fastserve.
translate.py  JSON -> fastserve definitions, and notes on what has no counterpart.
types.py      Feast's types -> ours.
code.py       definitions -> a readable features.py.
importer.py   the three in a row, and the files they write.
"""
