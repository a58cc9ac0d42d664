"""Training: a head on cached activations, and fine-tuning of a whole network."""
