"""Fine-tuning: a config, weights and data in, better weights out."""
