"""The contract of FaceCLIP serving, and the pure functions that export, server and benchmarks share.

Importing this package, and the declarations in `contract`, needs numpy alone. Nothing here imports `export`, `server`, `faceclip`
(the client) or `benchmarks`.
"""

__version__ = "0.1.0"
