"""Config, training steps and evaluation (module names of ADVENT's public interface)."""
