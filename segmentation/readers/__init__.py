"""Readers of the world's image formats; each turns files into stacks of planes (`segmentation.stacks`)."""
