"""`mlx-embed serve`: an HTTP server of embedding models and rerankers, for the clients that programs already have.

A request is read and checked (`app`, and a file of shapes for each kind of client), its texts wait in their model's
queue (`queue`), and what waits while one batch runs becomes the next batch. It needs the extra `serve`.
"""
