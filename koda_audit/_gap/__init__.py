"""The gap between two sets of embeddings, images and texts: pure mathematics on float64 tensors.

``sides``         what comes in: two matrices, checked, rows of length 1
``means``         the means over samples that metrics of the first order are functions of
``centroid``      the gap between the two means
``paired``        the gap between the two members of a pair
``folds``         covariances of all rows, and of all but one group
``frechet``       the Gaussian distance of two covariances
``dimension``     how many dimensions a side fills, and how much of it lies along the gap
``separability``  a linear classifier of the modality
``covariances``   all of the second order
``pairwise``      sums over all pairs of rows, in one pass
``pair_sums``     what they tell: energy distance, MMD, uniformity, nearest neighbours
``mmd``           bandwidth and permutation p-value of the MMD
``variants``      other definitions that go by the same names
``table``         what each key means
``intervals``     confidence intervals and split-half nulls
``measured``      values and intervals of each order
``metrics``       all of them at once
``by_group``      the cheap ones of each class by itself
``robustness``    decisions that noise on a gallery changes
``translate``     moving a gallery along the gap
"""
