"""What a model does: read text, score it, and write it."""
