"""Images in, class maps out: one case or many, volumes by slices, large rasters by windows."""
