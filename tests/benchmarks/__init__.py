"""How fast the library is, measured against the machine and against plain code: `python -m tests.benchmarks.run`."""
