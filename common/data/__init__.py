"""What a case is before any image is opened: batches, modality sets, records, findings."""
