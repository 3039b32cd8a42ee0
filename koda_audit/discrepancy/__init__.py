"""What one model holds together and another one does not, on the same samples.

``find``      from two models' embeddings to directions, lobes and samples
``lobes``     from a direction to the samples at its two ends, and what the kernels say about them
``result``    what is returned, and its files
``memory``    whether the dense matrices fit, before any is made
"""
