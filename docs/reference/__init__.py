"""What :mod:`generate` renders, by subject."""
