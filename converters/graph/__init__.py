"""Any prototxt as a `torch.nn.Module`: one small function per layer type, and their engine."""
