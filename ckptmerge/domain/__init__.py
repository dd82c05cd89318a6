"""The nouns of ckptmerge: frozen values and pure transitions, standard library only."""
