"""What the page of a run shows, as data: queries over its files, without any page."""
