"""What runs ckptmerge for people: commands and services above the library."""
