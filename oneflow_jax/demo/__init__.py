"""A local web page to fill the gaps of documents and watch every step: `make demo`."""
