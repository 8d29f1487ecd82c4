"""What a model has learnt: its predictions, its units, its effective context, and what its loss curves say."""
