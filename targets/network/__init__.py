"""A whole network as one function: a static graph, where its values lie, the calls it consists of, the library of them."""
