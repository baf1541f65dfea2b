"""Hostile input: models broken in seeded ways, and what graphprune makes of them.

`python -m tests.fuzz --count 10000 --seed 0` runs the long version; test_fuzz.py runs a short one.
"""
