"""Tables, pictures and HTML pages of runs and comparisons."""
