"""Energy-based models of handwritten digits, from a tied Potts grid to a chain of machines."""
