"""What is measured, and only that: frozen dataclasses and the JSON they are kept as. No torch."""
