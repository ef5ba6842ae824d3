"""What is measured on the machine at hand: the comparison run, each op, launches, and what the machine has.

Only the commands import this package; nothing that embeds texts does.
"""
