"""Answers as DICOM objects in the examination that they were computed of: SEG and RTSTRUCT of masks, SR of numbers."""
