"""Networks with a depth head: DAF's and DADA's."""
