"""`python -m mezzotint` is the `mezzotint` command."""

from mezzotint.cli import main

main()
