"""What `mlx-embed encode` does: the texts of a file to a file of vectors (`dense`), or of the other kinds (`kinds`)."""
