"""What the teacher reads: phrases of explanations made into vectors, or imported ones, and whether it uses them."""
