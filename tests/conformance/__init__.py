"""Somebody else's test cases, held against the law of every rule."""
