"""Adapters for other libraries, each an optional extra of its own."""
