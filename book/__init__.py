"""Pages of the book that compute across the papers, and what computes them."""
