"""A round of local training as a job, the one loop that runs it, and what a model says of cases."""
