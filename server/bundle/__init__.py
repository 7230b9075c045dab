"""A learned adapter as a MONAI bundle: it runs with torch and MONAI alone, wherever fedgraft is not."""
