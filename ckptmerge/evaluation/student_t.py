"""Tails of Student's t distribution, as far out as a test may look.

The levels of a run's later tests lie far below what a bootstrap can resolve, so the tail itself
is needed, to full relative precision; scipy stays out of the processes that decide.
"""

import math

_PRECISION = 1e-14
_SMALLEST_FREEDOM = 0.01
"""Heavier than any tail a bootstrap can show: about a third of its mass lies beyond 10^20."""


def survival(t: float, freedom: float) -> float:
    """Return P(T >= t) for Student's T with ``freedom`` degrees of freedom.

    For t >= 0 it is I_x(ν/2, 1/2)/2, the regularised incomplete beta function at x = ν/(ν + t²)
    (DLMF 8.17), to a relative precision of about 1e-12; beyond what float64 holds it is 0.
    """
    if t < 0:
        return 1 - survival(-t, freedom)
    a, odds = freedom / 2, t * t / freedom  # (1 - x)/x
    if odds == 0 or math.isinf(odds):
        return 0.5 if odds == 0 else 0.0
    x, rest = 1 / (1 + odds), 1 / (1 + 1 / odds)
    # Logarithms of x and of 1 - x that keep their precision where x is close to 1 or to 0.
    log_front = -a * math.log1p(odds) - math.log1p(1 / odds) / 2 + _log_inverse_beta(a)
    front = math.exp(log_front)
    # The fraction converges fast below the mean of the beta distribution; above it, by symmetry,
    # I_x(a, b) = 1 - I_{1-x}(b, a).
    if x < (a + 1) / (a + 2.5):
        return front / a / _continued_fraction(a, 0.5, x) / 2
    return (1 - front / 0.5 / _continued_fraction(0.5, a, rest)) / 2


def freedom_through(t: float, p: float, *, at_most: float) -> float:
    """Return the degrees of freedom, no more than ``at_most``, with which P(T >= t) is ``p``.

    Tails grow lighter with the degrees of freedom, so where even ``at_most`` leaves ``p`` or more
    beyond ``t``, the answer is ``at_most``.
    """
    if survival(t, at_most) >= p:
        return at_most
    low, high = math.log(_SMALLEST_FREEDOM), math.log(at_most)
    while high - low > 1e-9:
        middle = (low + high) / 2
        if survival(t, math.exp(middle)) >= p:
            low = middle
        else:
            high = middle
    return math.exp(low)


def _log_inverse_beta(a: float) -> float:
    """Return log(1/B(a, 1/2)) = log(Γ(a + 1/2)/Γ(a)) - log(π)/2.

    For large ``a`` the difference of two log-gammas would cancel; there it is the first terms of
    its asymptotic series (DLMF 5.11.13), whose next one is below 1e-16.
    """
    if a < 100:
        ratio = math.lgamma(a + 0.5) - math.lgamma(a)
    else:
        ratio = math.log(a) / 2 - 1 / (8 * a) + 1 / (192 * a**3) - 1 / (640 * a**5)
    return ratio - math.log(math.pi) / 2


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Return 1 + d₁/(1 + d₂/(1 + …)) of DLMF 8.17.22 by Lentz's method, modified by Thompson."""
    value, numerator, denominator, m = 1.0, 1.0, 0.0, 0
    change = 0.0
    while abs(change - 1) > _PRECISION:
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        m += 1
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        change = 1.0
        for term in (odd, even):
            denominator = 1 / (1 + term * denominator)
            numerator = 1 + term / numerator
            change *= numerator * denominator
        value *= change
    return value
