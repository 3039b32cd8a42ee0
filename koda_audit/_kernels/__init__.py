"""Kernels of image-text embeddings, k(x, x) = 1, as matrices scaled so that the trace is 1.

A kernel of both modalities is the product of the kernels of each (KODA, arXiv 2606.04180, sec 5).

``rbf``         Gaussian; needs widths
``bandwidth``   its widths: one rule for every model, so that two models are compared at the same resolution
``cosine``      the cosine of the angle; may be negative
``polynomial``  powers of an inner product plus a constant
``directions``  what the last two are made of: rows of length 1
``table``       all kernels under their names, called alike
"""
