"""Runs what `graphprune build` made: numpy arrays in and out, with nothing but numpy and TVM's runtime library.

    >>> from graphprune.runtime import load                     # doctest: +SKIP
    >>> network = load("model.gp")                              # doctest: +SKIP
    >>> result = network(x=images)["y"]                         # doctest: +SKIP
    >>> session = network.session()                             # one for each thread  # doctest: +SKIP
    >>> session.run({"x": images}, out={"y": y})                # doctest: +SKIP

An artifact holds code: load only those from people whose programs you would run.
"""

from graphprune.runtime.executable import Executable, Session, load
from graphprune.runtime.sizes import Sized, load_sizes

__all__ = ["Executable", "Session", "Sized", "load", "load_sizes"]
