"""The answers of each view and of the API: plain functions of the model registry, which need no page."""
