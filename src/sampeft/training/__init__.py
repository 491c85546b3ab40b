"""A model with a method attached and prepared slices in, a trained run folder out."""
