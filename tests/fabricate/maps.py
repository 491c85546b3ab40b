"""GeoTIFFs for tests, written by rasterio itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np


def write_tiff(path: Path, array_CHW: np.ndarray, **settings: Any) -> Path:
    """A TIFF by GDAL; alpha only where asked for, as GDAL tags the fourth 8-bit band by itself."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    count, height, width = array_CHW.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": array_CHW.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile, **{"alpha": "unspecified", **settings}) as file:
            file.write(array_CHW)
    return path


def place(west: float = 412_000.5, north: float = 3_345_000.25, pixel: float = 4.0, crs: str = "EPSG:32650") -> Any:
    """Where a raster lies, as rasterio wants it for writing."""
    from rasterio.transform import from_origin

    return {"crs": crs, "transform": from_origin(west, north, pixel, pixel)}
