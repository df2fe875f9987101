"""Networks with a depth head: DAF and DADA."""
