"""Charts as SVG text: pure functions from numbers and names to markup. Colours are CSS classes; the page's theme decides them."""
