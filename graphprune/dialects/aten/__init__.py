"""PyTorch: modules captured with `torch.export`, typed operator by operator (ATen), rewritten as graphs or in place."""
