"""Training runs with and without an injected fault, and the evaluation of the rules' findings."""
