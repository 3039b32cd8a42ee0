"""Directions that one positive semidefinite matrix holds and another one does not.

    max x'Ax   s.t.   x'Bx <= epsilon,   |x| = 1,   U'x = 0

``solve``      the public function: one direction after the other
``direction``  one direction on the complement of the earlier ones
``quotient``   the same problem with B diagonal: a search over regularised quotients, with a certificate
``mixing``     the hard case: the feasible combination of two vectors
``psd``        what is asked of A and B
"""
