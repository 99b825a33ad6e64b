"""Does it help? What is said of a difference, and how surely."""
