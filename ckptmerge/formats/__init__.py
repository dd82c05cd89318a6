"""Model files: the safetensors gate, manifests, and tensors read and written by name."""
