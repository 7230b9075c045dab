"""What changes local training beside the task's loss: corrections against drift, personal models."""
