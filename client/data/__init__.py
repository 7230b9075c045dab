"""Everything that opens a patient file: finding cases, preparing volumes, reading records, splitting by patient."""
