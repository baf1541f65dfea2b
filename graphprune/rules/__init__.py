"""How operators relate the axes of what they read and write: one file per family, shared by all dialects.

A rule types its outputs, ties axes that must be pruned together, pins what must not move, binds the numbers that
encode sizes, and declares contractions. It never rewrites anything, and knows no framework.
"""
