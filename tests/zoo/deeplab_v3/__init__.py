"""DeepLab v3 and v3+ of torchvision, OpenMMLab and pytorchcv."""
