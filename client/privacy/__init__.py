"""What may leave a hospital: the gate that every reply passes, the record of exact answers, the path of exact fits."""
