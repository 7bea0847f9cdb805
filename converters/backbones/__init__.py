"""The backbones of DeepLab v3 and v3+, each stated once as units."""
