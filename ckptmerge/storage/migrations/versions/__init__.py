"""Every schema change, oldest first."""
