"""Real search engines, which run the commands of docs/engines.md."""
