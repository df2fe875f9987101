"""Networks and data sets from a config."""
