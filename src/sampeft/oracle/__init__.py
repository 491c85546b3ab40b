"""Zero-shot bounds that use the truth: boxes, points, and the best of the automatic masks."""
