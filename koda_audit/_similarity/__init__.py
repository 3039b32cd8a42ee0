"""How alike two representations of the same samples are.

``measure``     ``similarity``: any of the measures, with intervals and p-values
``protocol``    what a measure is, and how a third party adds one
``products``    sums of products over samples: what the linear measures need
``cka``         linear CKA, as it is and without its bias
``procrustes``  after the best rotation
``cca``         canonical correlations: SVCCA, PWCCA
``distances``   between all samples, some rows at a time
``matrices``    n x n matrices compared entry by entry: RBF CKA, RSA
``neighbours``  whether the same samples lie near: mutual k-nearest neighbours, CKNNA
"""
