"""A whole network as one function: a static graph, where its values lie, its calls of kernels, and their library."""
