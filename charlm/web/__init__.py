"""The web demo: which models it serves, what its page and its API answer, and how it looks."""
