"""Tiny tensors on machines with other work: threads that wait for each other cost more than they bring."""

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)
