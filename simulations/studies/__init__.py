"""Studies: fixed tables of runs over the same splits, by the kind of their config.

Each has its options in `options`, one file with one `run`, and a line in the registries of `options` and `run`. A
plugin adds to them with `common.plugins.study`.
"""
