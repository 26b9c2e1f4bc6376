"""`python -m resonator` is the `resonator` command."""

from resonator.cli.main import main

main()
