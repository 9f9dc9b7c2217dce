"""Tasks made of text: the next character."""
