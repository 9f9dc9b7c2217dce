"""Tasks made of the files of the user."""
