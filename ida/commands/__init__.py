"""Commands of the installed program `dgada`; the scripts of the checkout call the same functions."""
