"""Who benefits: effects that differ between units, and how well scores rank them."""
