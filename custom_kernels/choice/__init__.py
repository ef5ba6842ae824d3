"""Which way an op is computed: what the caller wants, what this machine can be trusted with, and what is fastest."""
