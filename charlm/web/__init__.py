"""The web demo: the models it serves, the answers of its page and of its API, the layout and the server."""
