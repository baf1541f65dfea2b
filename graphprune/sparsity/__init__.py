"""Zeros in the weights of a network: chosen by a format and an importance, written, checked, reported and recognised.

Nothing here removes channels; shapes stay, and what a kernel makes of the zeros is the business of a target.
"""
