"""Model families (`base.Paradigm`).

Each one corrupts a canvas, computes the training loss and samples documents.
"""
