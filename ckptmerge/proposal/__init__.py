"""Proposing candidates: a pure function from what a study knows to what it should measure next."""
