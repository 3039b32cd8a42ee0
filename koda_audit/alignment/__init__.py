"""Post-hoc alignment: maps of finished embeddings that close the gap between images and texts, and what that costs."""
