"""What a backbone and every adapter on it weigh, without its weights."""
