"""What a prediction is worth, and how to make one."""
