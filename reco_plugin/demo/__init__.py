"""`reco demo`: insert pairs of unseen drawings, and measure what CLIP gains."""
