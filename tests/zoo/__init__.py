"""Networks that other people made, pruned without a hint: whole libraries of models, each run through capture,
analysis, plan and rewriting, and held against its masked self by every oracle.

    python -m tests.zoo --library torchvision --json torchvision.json
    python -m tests.zoo --library timm --only "resnet*" --jobs 2
    python -m tests.zoo --library torchvision --json torchvision.json --resume       # what the file has no records of
    python -m tests.zoo --library torchvision --only vit_b_32 --here

A list of models is a module with a function ``models()``; ``LIBRARIES`` in zoo.py names them. Weights are random and
seeded; none is downloaded. The libraries are no dependencies of graphprune: what is not installed is skipped.
"""
