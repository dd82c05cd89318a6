"""Keeping a service safe: look at the machine, back up, restore, and read every byte again."""
