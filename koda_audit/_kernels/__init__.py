"""Kernels of image-text embeddings, scaled so that the trace is 1.

``rbf``        the Gaussian kernel of one modality, or of both as a product
``bandwidth``  its width: one rule for every model, so that two models are compared at the same resolution
"""
