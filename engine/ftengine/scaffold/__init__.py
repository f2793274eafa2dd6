"""``ftengine plugins new``: a plugin's distribution, cut from one that has a component of every kind (`template`)."""
