"""A chip with hidden flaws is calibrated, and then draws from the laws that it was asked for."""
