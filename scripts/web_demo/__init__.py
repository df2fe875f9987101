"""Demo page: checkpoints to choose from, checks of uploaded files, results, and the page itself (Gradio)."""
