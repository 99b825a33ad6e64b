"""Real search engines, and what our pages claim of them."""
