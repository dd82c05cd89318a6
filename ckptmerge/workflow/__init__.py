"""The story, one verb a file, in the order it happens.

register -> open_studies -> ask (propose) -> assess -> tell -> materialise -> decide;
``local`` runs all of it in one process.
"""
