"""Training after a cut, where closed forms are not enough: one concept a file, put together in run.py.

Imports torch when used; `graphprune.finetune` is the door.
"""
