"""Folders of files to chunks, vectors and answers."""
