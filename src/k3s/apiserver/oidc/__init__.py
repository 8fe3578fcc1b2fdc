"""Users of other issuers: JSON web tokens of OpenID Connect, and what their claims say about the user."""
