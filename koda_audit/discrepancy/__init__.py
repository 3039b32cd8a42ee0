"""What one model holds together and another one does not, on the same samples.

``find``         from two models' embeddings to directions, lobes and samples
``choices``      whether what is asked can be done, and by which path
``paths``        three ways to the same directions
``lobes``        from a direction to the samples at its two ends, and what the kernels say about them
``sensitivity``  the same lobes under narrower and wider kernels
``shares``       what images and texts add to a lobe's excess
``quality``      what the models can still do on a lobe
``agreement``    whether lobes are clusters under each model
``themes``       the words that set the captions of a lobe apart
``views``        figures; ``layout`` says where the samples of a map lie, ``points`` what it starts from
``result``       what is returned, and its files
``memory``       whether a path's matrices fit, before any is made
"""
