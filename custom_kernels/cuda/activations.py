"""The activations and which half of a row is a gate, each at the place that is its number in the kernels."""

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
GATES = (None, "first", "second")
