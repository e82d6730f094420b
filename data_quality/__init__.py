"""What is worth training on: evidence about documents (features, signatures, overlaps) and the decisions made of it.

Pure functions on Arrow tables and Polars frames; which files they come from and go to is the stages' matter.
"""
