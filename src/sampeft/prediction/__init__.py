"""Images -> class maps, by one path for every image."""
