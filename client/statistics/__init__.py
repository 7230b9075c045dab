"""Statistics of a center before any training: measured on its own files, told under the rules of every reply."""
