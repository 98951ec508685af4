"""What is done with an edited model: saved with its card, whole or as changed weights, and asked beside its base."""
