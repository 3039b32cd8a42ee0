"""Benchmarks from stored embeddings: one extraction serves every alignment."""
