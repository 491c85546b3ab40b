"""Training of models and of denoisers, from prepared slices to a run folder."""
