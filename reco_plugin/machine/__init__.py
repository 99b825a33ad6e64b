"""What this process may use of its machine: cores, RAM, threads of products."""
