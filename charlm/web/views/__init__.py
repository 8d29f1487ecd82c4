"""The views of the page: the components of each, and which function answers which event."""
