"""Other people's frameworks: each module translates for one of them and does nothing else."""
