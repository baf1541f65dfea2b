"""WikiText-2 as token numbers: reading, and a byte-pair encoding that is learned from the training text.

A folder has train.txt.gz, valid.txt.gz and test.txt.gz, or the same without .gz. The encoding is stored beside the
networks that were trained with it; the same text gives the same encoding.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SPLITS = ("train", "valid", "test")
_WORD = re.compile(r" ?[^\s]+|\s")
_BYTES = 256


def read(folder: Path, split: str) -> str:
    """The text of a split."""
    packed, plain = folder / f"{split}.txt.gz", folder / f"{split}.txt"
    if packed.exists():
        return gzip.decompress(packed.read_bytes()).decode()
    if plain.exists():
        return plain.read_text(encoding="utf-8")
    raise SystemExit(f"{folder} has neither {packed.name} nor {plain.name}")


def digest(array: np.ndarray) -> str:
    """The first half of a SHA-256 of numbers: which data a table is about."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:32]


@dataclass
class Encoding:
    """A byte-pair encoding (Sennrich et al., ACL 2016) of bytes, inside words with the space before them.

    merges: the pairs of tokens that became one, in order; the first is token 256

    >>> Encoding([(97, 98)]).encode("ab abc").tolist()
    [256, 32, 256, 99]
    """

    merges: list[tuple[int, int]]
    _known: dict[str, list[int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._ranks = {tuple(pair): place for place, pair in enumerate(self.merges)}

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return _BYTES + len(self.merges)

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, uint16."""
        found: list[int] = []
        for word in _WORD.findall(text):
            if word not in self._known:
                self._known[word] = self._word(list(word.encode()))
            found += self._known[word]
        return np.array(found, np.uint16)

    def _word(self, tokens: list[int]) -> list[int]:
        while len(tokens) > 1:
            ranks = [self._ranks.get(pair, len(self.merges)) for pair in itertools.pairwise(tokens)]
            best = min(ranks)
            if best == len(self.merges):
                break
            tokens = merged(tokens, self.merges[best], _BYTES + best)
        return tokens


def merged(tokens: list[int], pair: tuple[int, int], into: int) -> list[int]:
    """Tokens with each occurrence of a pair, from the left, made one.

    >>> merged([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    found, place = [], 0
    while place < len(tokens):
        if tuple(tokens[place : place + 2]) == tuple(pair):
            found.append(into)
            place += 2
        else:
            found.append(tokens[place])
            place += 1
    return found


def learned(text: str, size: int) -> Encoding:
    """The encoding that merges the most frequent pair until there are so many tokens, or no pair is left; of equals
    the lower.

    >>> learned("ab ab ab", 257).merges
    [(97, 98)]
    """
    counts = Counter(_WORD.findall(text))
    words = [list(word.encode()) for word in counts]
    times = list(counts.values())
    pairs: Counter[tuple[int, int]] = Counter()
    where: dict[tuple[int, int], set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in itertools.pairwise(word):
            pairs[pair] += times[index]
            where[pair].add(index)
    merges: list[tuple[int, int]] = []
    while _BYTES + len(merges) < size and pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], -pair[0], -pair[1]))
        if not pairs[best]:
            break
        for index in where.pop(best):
            word = words[index]
            for pair in itertools.pairwise(word):
                pairs[pair] -= times[index]
            words[index] = word = merged(word, best, _BYTES + len(merges))
            for pair in itertools.pairwise(word):
                pairs[pair] += times[index]
                where[pair].add(index)
        del pairs[best]
        merges.append(best)
    return Encoding(merges)


def tokens(folder: Path, work: Path, size: int) -> dict[str, np.ndarray]:
    """The tokens of all splits, with an encoding of the training text, which is stored in ``work``."""
    stored = work / f"bpe-{size}.json"
    if not stored.exists():
        work.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(learned(read(folder, "train"), size).merges), encoding="utf-8")
    encoding = Encoding([(a, b) for a, b in json.loads(stored.read_text(encoding="utf-8"))])
    return {split: encoding.encode(read(folder, split)) for split in SPLITS}
