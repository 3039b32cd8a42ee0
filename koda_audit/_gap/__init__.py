"""The gap between two sets of embeddings, images and texts: pure mathematics on float64 tensors."""
