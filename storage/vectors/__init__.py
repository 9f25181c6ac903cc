"""Texts as vectors: the embedders, and the index that finds them again."""
