"""The sections of a study, each a function of the study; one question and its answer."""
