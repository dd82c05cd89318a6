"""How good a model is on documents, and how sure that is."""
