"""Action recognition for ftengine: clips as data, and networks, a head and a metric for them."""
