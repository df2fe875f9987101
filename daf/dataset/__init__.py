"""What a depth value means, and SYNTHIA with depth."""
