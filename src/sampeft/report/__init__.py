"""Figures, tables and a self-contained HTML page."""
