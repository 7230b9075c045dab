"""What differential privacy of patients costs: releases with noise, and the epsilon that a list of them adds up to."""
