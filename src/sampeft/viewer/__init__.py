"""Trained runs, a data set and evaluations in, a local web page with an HTTP interface out (`sampeft serve`)."""
