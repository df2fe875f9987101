"""Networks on RGB: DeepLabv2, its encoders, and the discriminator."""
