"""What pruning did beyond one number: the answers that changed, for whom, and on inputs that nobody calibrated with.

>>> from graphprune.audit import audit                                              # doctest: +SKIP
>>> print(audit(dense, [small], data="test.npz", labels="labels.npy"))              # doctest: +SKIP
"""

from graphprune.audit.report import Audit
from graphprune.audit.run import audit

__all__ = ["Audit", "audit"]
