"""Networks drawn as on a board, from their ledgers, and the line of descent of the landmark networks. No torch here."""
