"""What runs here and under which licences: software, weights and adapters, as an SBOM and as a list."""
