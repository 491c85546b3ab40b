"""The local web page and HTTP interface of `sampeft serve`."""
