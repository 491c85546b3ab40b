"""Evaluations, example slices and training records in; figures, tables and a self-contained HTML page out."""
