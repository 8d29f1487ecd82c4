"""What a model does: read, score and write text."""
