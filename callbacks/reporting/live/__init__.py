"""Live view of a running training, in the terminal and as a page."""
