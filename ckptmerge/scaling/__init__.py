"""What a merge is worth in training."""
