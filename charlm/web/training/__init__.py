"""A training that a visitor asks for on the page: what is trained, where it runs, and what it leaves."""
