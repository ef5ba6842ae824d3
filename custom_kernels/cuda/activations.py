"""The activations, each at the place that is its number in `shared/activations.cuh`."""

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
