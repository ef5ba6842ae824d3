"""Texts and their ids from files, and vectors to files, a part at a time: memory does not grow with them.

`reading` reads lines, JSONL, CSV and Parquet; `writing`, and `ragged` for rows of several lengths, keep what is done
through a kill, and put a finished file in its place as a whole; `parquet` is what needs pyarrow.
"""
