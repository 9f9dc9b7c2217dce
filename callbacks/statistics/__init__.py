"""Statistics of gradient tensors."""
