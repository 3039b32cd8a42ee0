"""What one model holds together and another one does not, on the same samples.

``find``         from two models' embeddings to directions, lobes and samples
``choices``      whether what is asked can be done, and by which path
``paths``        three ways to the same directions
``lobes``        from a direction to the samples at its two ends, and what the kernels say about them
``sensitivity``  the same lobes under narrower and wider kernels
``themes``       what the captions of a lobe have in common
``result``       what is returned, and its files
``memory``       whether a path's matrices fit, before any is made
"""
