"""What sees the truth: scores, calibration, and the choice of refiners."""
