"""Configuration as people write it, checked where it comes in."""
