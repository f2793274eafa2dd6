"""Embeddings of images, in which those of one class lie close together, for classes that training never saw."""
