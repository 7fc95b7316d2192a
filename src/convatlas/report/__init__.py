"""Records to text, SVG and HTML. No torch: a page is rebuilt from run files alone."""
