"""First floor: depth. Networks, the depth-aware map, the depth loss, and the methods made of them."""
