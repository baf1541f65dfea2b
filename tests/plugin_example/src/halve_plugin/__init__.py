"""An example of a package that adds a pass to graphprune."""
