"""Merging: the arithmetic, which tensors it applies to, and where its results go."""
