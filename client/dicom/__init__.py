"""From DICOM to the HECKTOR layout: series, geometry, standardized uptake, structures; no identifier passes."""
