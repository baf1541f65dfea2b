"""The ATen dialect: rules and captures, with groups worked out by hand."""
