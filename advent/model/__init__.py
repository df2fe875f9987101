"""Networks for RGB input: DeepLabv2, its encoders, and the domain discriminator."""
