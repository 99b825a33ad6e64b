"""`reco demo`: knowledge arrives by inserting pairs, shown on drawings that CLIP never saw."""
