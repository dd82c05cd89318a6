"""`ckptmerge demo`: the whole story on this machine, with real processes and real text."""
