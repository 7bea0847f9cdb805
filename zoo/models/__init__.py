"""Native models: readable torch modules that obey a numerics profile."""
