"""What centers are asked for and nobody learns from: two models side by side, and statistics before any training."""
