"""Embeddings: the container, their extraction from a model, and the store on disk."""
