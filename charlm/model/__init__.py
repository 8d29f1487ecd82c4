"""What a model is: its configuration, weights, training record and card, and the folder that holds them."""
