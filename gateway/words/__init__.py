"""Words of a request: recipes, and prompts in the user's language. Both are the client's; here they have routes."""
