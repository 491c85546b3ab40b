"""Class channels of prediction and truth in, scores per case and class with intervals out."""
