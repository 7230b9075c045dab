"""What must survive at a hospital between messages: local state, references, erased patients, what left."""
