"""What is true without a database: labelers, statistics and tables, as a library of its own."""

from .pipeline import AutoLabelingPipeline, AutoLabelResult, LabelingWarning

__all__ = ["AutoLabelResult", "AutoLabelingPipeline", "LabelingWarning"]
