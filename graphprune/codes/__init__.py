"""The code of every refusal, failure and note, with the text that `graphprune explain GP204` prints.

To add one, add a row to the file of its family, in order; nothing else needs to know. A code is never reused for
another meaning. Imports nothing but the standard library.
"""

from graphprune.codes import budgets, compiling, dimensions, internal, plans, recovery, sparsity, usage, verification
from graphprune.codes.code import FAMILIES, Code

CODES = {
    row.code: row
    for family in (usage, dimensions, budgets, verification, plans, compiling, recovery, sparsity, internal)
    for row in family.ROWS
}

__all__ = ["CODES", "FAMILIES", "Code"]
