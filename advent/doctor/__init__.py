"""What is amiss with a data set, in words: found before hours are spent."""
