"""Synthetic street scenes: images with exact class labels and depth, drawn with numpy and OpenCV."""
