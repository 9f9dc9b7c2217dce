"""Tasks whose examples are drawn by a formula."""
