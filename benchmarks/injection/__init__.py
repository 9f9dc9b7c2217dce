"""Training runs with and without an injected fault, and what the rules make of them."""
