"""Time as a budget: what layers take at which widths, measured on a machine and kept in a table.

Counts say little about time: a runtime works in blocks of channels, and a layer of 61 can take longer than one of 64.
So each layer is run by itself at a grid of widths (:mod:`~graphprune.latency.layers`,
:mod:`~graphprune.latency.measure`), what it took is kept in a table (:mod:`~graphprune.latency.table`), and the time
of a network is the sum over its layers and of a rest that whole networks tell (:mod:`~graphprune.latency.cost`).
Allocators see it as one more measure of cost. Tables of layers: Radu et al., Performance aware convolutional neural
network channel pruning for embedded GPUs, IISWC 2019; as a budget: Shen et al., Structural Pruning via Latency-Saliency
Knapsack, NeurIPS 2022.
"""
