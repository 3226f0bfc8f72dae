"""The command `byway`, also as `python -m byway`.

It imports nothing until it is called: a worker of `byway serve` begins by importing what started it.
"""


def main() -> None:
    """Run the command line."""
    from byway import cli

    cli.main()


if __name__ == "__main__":
    main()
