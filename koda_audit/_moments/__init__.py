"""Count, sum and cross-product of feature rows: all that a covariance needs, from chunks in any order.

``moments``    the value: streamed, merged, saved, loaded
``symmetric``  F'F without the half that is its mirror image
"""
