"""Tasks on the user's files."""
