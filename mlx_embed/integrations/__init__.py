"""Adapters for other libraries, each an optional extra: `langchain`, `llama_index` and `chroma`."""
