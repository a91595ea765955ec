"""Image -> lattice: arrays in, typed results out; no files, no torch."""
