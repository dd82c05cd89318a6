"""HTTP routes, one resource a file; what they decide is in the library's workflow."""
