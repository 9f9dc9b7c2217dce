"""Tasks with randomly generated examples."""
