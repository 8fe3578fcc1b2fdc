"""The cells of a table row: kind -> function from an object and the clock to its cells."""
