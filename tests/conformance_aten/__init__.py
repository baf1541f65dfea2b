"""PyTorch's own samples of its operators, held against the law of every rule of the ATen dialect."""
