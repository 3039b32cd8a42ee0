"""Feature maps whose inner products are a kernel of ``_kernels``.

A map is drawn once and is then a fixed function of one sample, so that rows may come in chunks of any size, on any
device, today or on another machine. Rows have length 1; divided by sqrt(n) they give the matrix K/n.

``maps``        what all maps have in common
``fourier``     random, for the Gaussian kernel
``projection``  random, for cosine and polynomial kernels
"""
