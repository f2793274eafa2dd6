"""Torchvision's classification networks as backbones with ordered stages."""
