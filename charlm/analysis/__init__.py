"""What a model has learnt: its expectations, its units, how far back it looks, and what its loss curves say."""
