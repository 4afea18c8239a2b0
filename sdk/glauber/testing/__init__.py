"""For tests, ours and other people's: exact laws to compare with, and the pytest plug-in."""

from glauber.testing.exact import ExactLaw, chi_square

__all__ = ["ExactLaw", "chi_square"]
