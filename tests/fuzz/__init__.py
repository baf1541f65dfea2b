"""Hostile input: models and plans broken in seeded ways, and what graphprune makes of them.

    python -m tests.fuzz --count 10000 --seed 0                 the long version of test_fuzz.py
    python -m tests.fuzz --first 4711 --count 1 --keep failed   one case again, its file kept if it fails
    python -m tests.fuzz --folder models --verify               break other models; compare what comes out by running it

What is allowed: an error with a code, a place and a remedy; or a pruned model that can be read back (and, with
--verify, that computes what it should). Anything else is a defect: another exception, a crash of the process, more
than 20 seconds, more memory than the limit, a file outside of the output folder.
"""
