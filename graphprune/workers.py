"""Work that falls into independent items, on all cores: the items go to threads, and results come in their order.

One item is computed by one thread. Matrix products and networks of the size of a layer are too small to be divided
further: most of that time goes into threads that wait for one another, all the more where the machine does something
else as well. And as no item is divided, the number of threads changes no bit of the result.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from threading import Lock
from typing import Protocol, TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

_MOST = 8
"""Threads: each has activations of one batch laid out in memory."""

Limit = Callable[[int], int]
"""Has networks run on so many threads where this thread runs them, and says how many it were."""


class Each(Protocol):
    """A function of every item, results in the order of the items. Only a few items ahead of the one that is read are
    begun, so that results that are added up are not in memory all at once. Must be read to the end."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]: ...


def in_turn(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """One after the other, on the thread that asks.

    >>> list(in_turn(abs, [-1, 2]))
    [1, 2]
    """
    return map(function, items)


def cores() -> int:
    """How many threads there are: ``OMP_NUM_THREADS`` where that is set, else as many as cores may be used; up to 8."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told) > 0:
        return min(_MOST, int(told))
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST, allowed)


@contextmanager
def workers(limit: Limit, count: int | None = None) -> Iterator[Each]:
    """Threads for as long as this lasts; meanwhile products of matrices run on one thread each, everywhere.

    limit: of the framework that runs the networks
    count: of threads; :func:`cores` where it is not given. With 1, for items that must be computed in their order,
           there are none, and whatever divides products goes on doing so
    """
    if count == 1:
        yield in_turn
        return
    count = count or cores()
    before = limit(1)
    try:
        with lone_products(), ThreadPoolExecutor(count, "graphprune", limit, (1,)) as pool:
            yield _Ahead(pool, count)
    finally:
        limit(before)


class _Ahead:
    """See :class:`Each`."""

    def __init__(self, pool: ThreadPoolExecutor, count: int):
        self.pool, self.count = pool, count

    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        rest = iter(items)
        begun: deque[Future[R]] = deque(self.pool.submit(function, item) for item in islice(rest, self.count + 1))
        try:
            while begun:
                yield begun.popleft().result()
                begun.extend(self.pool.submit(function, item) for item in islice(rest, 1))
        finally:
            for future in begun:
                future.cancel()


_lock = Lock()
_inside: list[threadpool_limits] = []
"""The limit that the first put, for each that is inside now."""


@contextmanager
def lone_products() -> Iterator[None]:
    """Products of matrices on one thread each, where the library can be told so. May be nested, and entered by several
    threads: the last to leave puts back what the first found."""
    with _lock:
        _inside.append(_inside[0] if _inside else threadpool_limits(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _inside.pop()
            if not _inside:
                limit.restore_original_limits()
