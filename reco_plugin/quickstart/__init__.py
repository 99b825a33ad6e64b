"""The quickstart benchmark: drawings of 1,644 entities in eight styles, from npm packages, split by concept."""
