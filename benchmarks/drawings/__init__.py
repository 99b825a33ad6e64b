"""Make drawings of icon sets: packages through npm, SVG to pixels, and the sheets that the package carries."""
