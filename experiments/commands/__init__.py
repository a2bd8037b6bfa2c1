"""One module per command of `ncflow`: `Options`, a dataclass whose docstring is the help text, and `run(options)`."""
