"""Fewer layers: residual blocks that can be left out as a whole, which of them go, and the model without them.

One concept a file: ``residual.py`` finds the blocks and proves what is left, ``choose.py`` decides by how little a
block does to what goes through it, ``plan.py`` writes that down, ``apply.py`` makes the model. Knows no framework.
"""
