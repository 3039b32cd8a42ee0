"""Kernels of image-text embeddings, k(x, x) = 1, as matrices scaled so that the trace is 1.

A kernel of both modalities is the product of the kernels of each (KODA, arXiv 2606.04180, sec 5).

``rbf``         Gaussian; needs widths
``bandwidth``   its widths: one rule for every model, so that two models are compared at the same resolution
``polynomial``  powers of an inner product plus a constant, the cosine among them
``directions``  what it is made of: rows of length 1
``blocks``      any block of a kernel matrix, or all of it
``table``       all kernels under their names: a record each
"""
