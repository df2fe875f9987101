"""One reader for every data set; a data set is a YAML spec."""
