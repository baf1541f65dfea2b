"""Cases for recurrent networks of speech: blocks of sound, each with the state that the network is in by then.

    python benchmarks/accuracy/speech.py silero_vad_16k_op15.onnx OUT.npz [--blocks 600]
    python benchmarks/accuracy/speech.py dtln_2.onnx OUT.npz

The sound is made here (pulses of a changing pitch through three resonances that move from vowel to vowel, hissing
consonants, pauses, and noise beside it): no recording is needed, and none is as free. It is no speech, but what a
network of speech does with it is not idle: the share of blocks that silero takes for speech is printed. onnxsim and
graphprune read the file by `--data OUT.npz` of onnx_files.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16000
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
"""Resonances of vowels in Hz (Peterson & Barney, 1952)."""


def resonated(sound: np.ndarray, frequency: float, width: float) -> np.ndarray:
    """A sound through a resonance: a filter with two poles (Klatt, 1980)."""
    radius = np.exp(-np.pi * width / RATE)
    first, second = 2 * radius * np.cos(2 * np.pi * frequency / RATE), -(radius**2)
    found, last, older = np.zeros_like(sound), 0.0, 0.0
    for place, each in enumerate(sound.tolist()):
        last, older = (1 - first - second) * each + first * last + second * older, last
        found[place] = last
    return found


def spoken(seconds: float, seed: int) -> np.ndarray:
    """Syllables with pauses between them, float32 in -1..1."""
    generator, parts, length = np.random.default_rng(seed), [], 0
    while length < seconds * RATE:
        hiss = generator.normal(size=int(RATE * generator.uniform(0.03, 0.1))) * 0.05
        count = int(RATE * generator.uniform(0.1, 0.3))
        pitch = generator.uniform(90, 220) * (1 + 0.2 * np.sin(np.linspace(0, generator.uniform(1, 4), count)))
        pulses = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0)
        for frequency, width in zip(_VOWELS[generator.integers(len(_VOWELS))], (60, 90, 150), strict=True):
            pulses = resonated(pulses, frequency * generator.uniform(0.95, 1.05), width)
        voice = pulses / np.abs(pulses).max() * np.hanning(count) ** 0.3 * generator.uniform(0.2, 0.7)
        pause = np.zeros(int(RATE * (generator.uniform(0.3, 0.8) if generator.random() < 0.2 else 0.03)))
        parts += [hiss, voice, pause]
        length += len(hiss) + count + len(pause)
    sound = np.concatenate(parts)
    return (sound + generator.normal(size=len(sound)) * 0.005).astype(np.float32)


def silero(session: Any, sound: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Blocks of 512 samples behind the last 64 of the block before."""
    state, rate, spoke, count = np.zeros((2, 1, 128), np.float32), np.array(RATE, np.int64), 0, 0
    for begin in range(64, len(sound) - 512, 512):
        case = {"input": sound[None, begin - 64 : begin + 512], "state": state, "sr": rate}
        yield case
        output, state = session.run(None, case)
        spoke, count = spoke + int(output.item() > 0.5), count + 1
    print(f"{spoke / count:.0%} of the blocks are speech to the dense network")


def dtln(session: Any, sound: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Blocks of 512 samples, 128 apart."""
    block, before = (each.name for each in session.get_inputs())
    state = np.zeros((1, 2, 128, 2), np.float32)
    for begin in range(0, len(sound) - 512, 128):
        case = {block: sound[None, None, begin : begin + 512], before: state}
        yield case
        state = session.run(None, case)[1]


def main() -> None:
    import onnxruntime

    parser = argparse.ArgumentParser(description="Cases for recurrent networks of speech.")
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--blocks", type=int, default=600)
    given = parser.parse_args()
    session = onnxruntime.InferenceSession(given.file, providers=["CPUExecutionProvider"])
    make, hop = (silero, 512) if "silero" in given.file.name else (dtln, 128)
    cases = list(make(session, spoken((given.blocks + 8) * hop / RATE, 0)))[: given.blocks]
    np.savez(given.out, **{name: np.stack([case[name] for case in cases]) for name in cases[0]})
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()
