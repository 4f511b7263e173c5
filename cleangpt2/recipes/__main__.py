"""``python -m cleangpt2.recipes``: the table of recipes, and how to run each."""

from cleangpt2.recipes.catalogue import RECIPES, table


def main() -> None:
    """Print both."""
    print(table(), "\n", sep="\n")
    for recipe in RECIPES:
        print(f"python -m cleangpt2.recipes.{recipe.command}")
    print("\nEach of them explains itself with --help, and goes on where it stopped.")


if __name__ == "__main__":
    main()
