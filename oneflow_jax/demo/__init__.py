"""A local web page to write documents with gaps and watch a model fill them: `oneflow demo`."""
