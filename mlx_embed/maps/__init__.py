"""A map of a corpus: vectors laid out in two dimensions, in clusters with words, as a page or as Parquet."""
